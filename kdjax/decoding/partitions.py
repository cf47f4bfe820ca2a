"""From pairs to bundles: which groupings of a session's products are likely, and the answer with the best F1 to be expected of it."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from kdjax.evaluation import matched_overlap

Grouping = tuple[tuple[int, ...], ...]  # of one session: 0-based positions, ascending; two or more products each
WIDTH = 64  # groupings that are followed: ten products have 115,975, nearly all of them next to impossible


def likely_bundles(log_odds: Float[np.ndarray, "products products"], width: int = WIDTH) -> dict[Grouping, float]:
    """The likeliest groupings of a session's products and their probabilities among themselves, which sum to 1.

    A grouping's log-probability is, up to a constant, the sum of the log-odds of all pairs that it puts together: each pair
    is judged by itself, and of all outcomes only groupings remain. Products are placed one after the other, and after each
    the `width` likeliest groupings are followed. Up to five products these are all; of ten products the 64 hold a third of
    the probability where little is sure, and to follow 4,096 changes no score.
    """
    followed: dict[tuple[int, ...], float] = {(0,): 0.0}  # the bundle of each product so far → its score
    for product in range(1, len(log_odds)):
        reached: dict[tuple[int, ...], float] = {}
        for places, score in followed.items():
            alone = max(places) + 1
            gains = np.bincount(places, weights=log_odds[product, :product], minlength=alone + 1)
            reached |= {(*places, place): score + gain for place, gain in enumerate(gains)}
        likeliest = sorted(reached, key=reached.__getitem__, reverse=True)[:width]
        followed = {places: reached[places] for places in likeliest}
    top = max(followed.values())
    weights = {places: np.exp(score - top) for places, score in followed.items()}
    total = sum(weights.values())
    return {_bundles(places): float(weight / total) for places, weight in weights.items()}


def _bundles(places: Sequence[int]) -> Grouping:
    members: dict[int, list[int]] = {}
    for product, place in enumerate(places):
        members.setdefault(place, []).append(product)
    return tuple(tuple(bundle) for bundle in members.values() if len(bundle) > 1)


def best_answer(beliefs: Mapping[Grouping, float]) -> Grouping:
    """The answer whose strict F1 in this session is highest in expectation over what is believed (minimum Bayes risk, Kumar & Byrne 2004).

    It is one of the groupings believed, and not empty if there is one that is not. Of equals the likelier is chosen, then
    the first in order.
    """
    truths = [(list(map(frozenset, bundles)), share) for bundles, share in beliefs.items()]

    def expected(answer: Grouping) -> tuple[float, float]:
        named = list(map(frozenset, answer))
        f1 = sum(share * 2 * matched_overlap(named, true) / (len(named) + len(true)) for true, share in truths)
        return round(f1, 9), beliefs[answer]

    return max(sorted(filter(None, beliefs)), key=expected, default=())
