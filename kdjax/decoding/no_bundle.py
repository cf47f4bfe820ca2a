"""The probability that no two products of a session belong together, learned from sessions annotated without a bundle."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kdjax.decoding.partitions import NO_BUNDLE, Grouping

CERTAIN = 1e-6  # probabilities are kept this far from 0 and 1, so that their log-odds are finite
FEWEST = 10  # sessions of each kind below which nothing is fitted


@dataclass(frozen=True)
class NoBundle:
    """Platt's map (1999) of the log-odds of NO_BUNDLE: scale · log-odds + bias. The default changes nothing.

    The pairs are judged by a student trained on sessions that all have bundles, so what it believes of NO_BUNDLE needs
    calibration. `sessions` counts the sessions without a bundle that the map was fitted to.
    """

    scale: float = 1.0
    bias: float = 0.0
    sessions: int = 0

    def __call__(self, beliefs: Mapping[Grouping, float]) -> dict[Grouping, float]:
        """The same groupings, NO_BUNDLE with its calibrated probability; the others share the rest as before."""
        if not self.sessions:
            return dict(beliefs)
        before = beliefs[NO_BUNDLE]
        after = 1.0 / (1.0 + math.exp(-(self.scale * _log_odds(before) + self.bias)))
        rest = (1.0 - after) / max(1.0 - before, CERTAIN)
        return {grouping: share * rest for grouping, share in beliefs.items()} | {NO_BUNDLE: after}


def fit_no_bundle(without: Sequence[float], having: Sequence[float], share: float) -> NoBundle:
    """The map that fits what was believed of NO_BUNDLE in sessions `without` and `having` bundles.

    `share` is the share of sessions without a bundle where these come from; the two kinds are weighted to it. With fewer
    than 10 sessions of either kind, or a student whose beliefs do not tell them apart, nothing is changed.
    """
    from sklearn.linear_model import LogisticRegression

    if min(len(without), len(having)) < FEWEST:
        return NoBundle()
    believed = np.array([[_log_odds(one)] for one in (*without, *having)])
    labels = np.repeat([1, 0], [len(without), len(having)])
    weights = np.repeat([share / len(without), (1.0 - share) / len(having)], [len(without), len(having)])
    fitted = LogisticRegression(C=1e3).fit(believed, labels, sample_weight=weights * len(labels))
    scale, bias = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    return NoBundle(scale, bias, len(without)) if scale > 0 else NoBundle()


def _log_odds(probability: float) -> float:
    kept = min(max(probability, CERTAIN), 1.0 - CERTAIN)
    return math.log(kept / (1.0 - kept))
