"""How sure a difference is: bootstrap over sessions, and Holm's correction over the rows of a table.

The unit that is drawn is a session, because the products and bundles inside one depend on each other. A resample of
sessions is a vector of how often each was drawn; times the sessions' counts that is the resample's sums, so 2000
resamples of a micro metric are one matrix product.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from kdjax.errors import InputError
from kdjax.evaluation.metrics import from_counts


class Difference(NamedTuple):
    """Metric of the first system minus that of the second, its interval, and the two-sided p-value of "no difference"."""

    difference: float
    low: float
    high: float
    p_value: float


def bootstrap_interval(
    counts: np.ndarray, metric: str, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval (low, high) of one metric over sessions; Efron & Tibshirani 1993, §13.3.

    `counts`: [n_sessions, n_statistics] of `session_counts`; `metric`: its group and name, as "strict.f1".
    Raises InputError for an unknown metric and ValueError without sessions.
    """
    return _interval(_metric(_drawn(len(counts), resamples, seed) @ counts, metric), level)


def paired_bootstrap(
    counts_a: np.ndarray, counts_b: np.ndarray, metric: str, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Difference:
    """Compare two systems on the same sessions: every resample draws the same sessions for both (Koehn 2004).

    Row i of both counts must be the same session. The p-value inverts the percentile interval: twice the smaller share of
    resamples on either side of zero, with one added to count and number (Davison & Hinkley 1997, §4.2.3), so it is never
    below 2 / (resamples + 1): a large table under Holm needs more resamples. Two equal systems give p = 1.

    Raises ValueError if the numbers of sessions differ or are 0, and InputError for an unknown metric.
    """
    if len(counts_a) != len(counts_b):
        raise ValueError(
            f"the systems have {len(counts_a)} and {len(counts_b)} sessions; a paired test needs the same ones"
        )
    drawn = _drawn(len(counts_a), resamples, seed)
    differences = _metric(drawn @ counts_a, metric) - _metric(drawn @ counts_b, metric)
    differences = differences.round(12)  # what differs by rounding alone lies on both sides of zero
    difference = _metric(counts_a.sum(axis=0), metric) - _metric(counts_b.sum(axis=0), metric)
    tail = 1 + min((differences <= 0).sum(), (differences >= 0).sum())
    return Difference(float(difference), *_interval(differences, level), float(min(1, 2 * tail / (resamples + 1))))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values in the given order, controlling the chance of any false discovery; Holm 1979.

    The k-th smallest of m (from 0) is multiplied by m - k, kept at most 1 and at least its predecessor.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = p.argsort(kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted.tolist()


@lru_cache(maxsize=4)  # a table asks for many metrics of the same sessions
def _drawn(n_sessions: int, resamples: int, seed: int) -> np.ndarray:
    """How often each session is drawn in each resample, float64 [resamples, n_sessions]."""
    if n_sessions == 0:
        raise ValueError("there are no sessions to resample")
    even = np.full(n_sessions, 1 / n_sessions)
    drawn = np.random.default_rng(seed).multinomial(n_sessions, even, size=resamples).astype(np.float64)
    drawn.setflags(write=False)
    return drawn


def _metric(sums: np.ndarray, metric: str) -> np.ndarray:
    """One metric, named "group.name", from sums [..., n_statistics]: an array of the leading axes."""
    values = {f"{group}.{name}": value for group, names in from_counts(sums).items() for name, value in names.items()}
    if metric not in values:
        raise InputError(f"there is no metric {metric!r}; the metrics are {', '.join(values)}")
    return np.asarray(values[metric])


def _interval(values: np.ndarray, level: float) -> tuple[float, float]:
    """The central share `level` of values [resamples]."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
