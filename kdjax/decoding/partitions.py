"""From pairs to bundles: which groupings of a session's products are likely, and the answer of the best expected F1."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from kdjax.evaluation import matched_overlap

Bundle = tuple[int, ...]  # 0-based positions in the session, ascending
Grouping = tuple[Bundle, ...]  # of one session's products; bundles of two or more, () where no two belong together
NO_BUNDLE: Grouping = ()
WIDTH = 64  # groupings that are followed: ten products have 115,975, nearly all of them next to impossible


def likely_bundles(log_odds: Float[np.ndarray, "products products"], width: int = WIDTH) -> dict[Grouping, float]:
    """The likeliest groupings of a session's products and their probabilities among themselves, which sum to 1.

    A grouping's log-probability is, up to a constant, the sum of the log-odds of all pairs that it puts together: each pair
    is judged by itself, and of all outcomes only groupings remain. Products are placed one after the other, and after each
    the `width` likeliest groupings are followed. Up to five products these are all; of ten products the 64 hold a third of
    the probability where little is sure, and to follow 4,096 changes no score. NO_BUNDLE is always among them.
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
    followed.setdefault(tuple(range(len(log_odds))), 0.0)
    top = max(followed.values())
    weights = {places: np.exp(score - top) for places, score in followed.items()}
    total = sum(weights.values())
    return {_bundles(places): float(weight / total) for places, weight in weights.items()}


def _bundles(places: Sequence[int]) -> Grouping:
    members: dict[int, list[int]] = {}
    for product, place in enumerate(places):
        members.setdefault(place, []).append(product)
    return tuple(tuple(bundle) for bundle in members.values() if len(bundle) > 1)


def bundle_probabilities(beliefs: Mapping[Grouping, float]) -> dict[Bundle, float]:
    """How probable each bundle is: the sum over all groupings that contain exactly it."""
    found: dict[Bundle, float] = {}
    for grouping, share in beliefs.items():
        for bundle in grouping:
            found[bundle] = found.get(bundle, 0.0) + share
    return found


def best_answer(beliefs: Mapping[Grouping, float]) -> Grouping:
    """The answer of the highest expected strict F1 in this session (minimum Bayes risk, Kumar & Byrne 2004).

    It is one of the groupings believed, and not NO_BUNDLE if there is another. Of equals the likelier is chosen, then
    the first in order.
    """
    return _best(beliefs, sorted(filter(None, beliefs)))


def sure_answer(beliefs: Mapping[Grouping, float], min_probability: float = 0.0) -> Grouping:
    """As `best_answer`, but NO_BUNDLE is an answer like others, with F1 1 where nothing belongs together.

    Only groupings whose every bundle is at least as probable as `min_probability`, and as there being no bundle at all,
    are considered: among unlikely groupings, the whole session often has the best expected F1.
    """
    least = max(min_probability, beliefs.get(NO_BUNDLE, 0.0))
    probable = {bundle for bundle, share in bundle_probabilities(beliefs).items() if share >= least}
    return _best(beliefs, sorted(grouping for grouping in {NO_BUNDLE, *beliefs} if probable.issuperset(grouping)))


def _best(beliefs: Mapping[Grouping, float], answers: Sequence[Grouping]) -> Grouping:
    truths = [(list(map(frozenset, bundles)), share) for bundles, share in beliefs.items()]

    def expected(answer: Grouping) -> tuple[float, float]:
        believed = beliefs.get(answer, 0.0)
        if not answer:
            return round(believed, 9), believed
        named = list(map(frozenset, answer))
        f1 = sum(share * 2 * matched_overlap(named, true) / (len(named) + len(true)) for true, share in truths)
        return round(f1, 9), believed

    return max(answers, key=expected, default=NO_BUNDLE)
