"""From links to bundles: which groupings the links make likely, and the answer with the best strict F1 to be expected."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from kdjax.evaluation import matched_overlap

Bundles = tuple[tuple[int, ...], ...]  # of one session: 0-based positions, ascending; two or more products each
WIDTH = 64  # groupings that are followed: ten products have 115,975, nearly all of them next to impossible


def likely_bundles(links: Float[np.ndarray, "products products"], width: int = WIDTH) -> dict[Bundles, float]:
    """The likeliest groupings of a session's products and their probabilities, which sum to 1.

    Each product joins the bundle of the one that it names, independently, by its row of `links` (`LinkReader`). Products are
    placed one after the other, and after each the `width` likeliest groupings are followed: all of them up to five
    products.
    """
    followed = {(0,): 1.0}  # the bundle of each product so far → its probability
    for product in range(1, len(links)):
        reached: dict[tuple[int, ...], float] = {}
        for places, probability in followed.items():
            alone = max(places) + 1
            joins = np.bincount(places, weights=links[product, 1 : product + 1], minlength=alone + 1)
            joins[alone] = links[product, 0]
            reached |= {(*places, place): probability * share for place, share in enumerate(joins)}
        likeliest = sorted(reached, key=reached.__getitem__, reverse=True)[:width]
        followed = {places: reached[places] for places in likeliest}
    total = sum(followed.values())
    found: dict[Bundles, float] = {}
    for places, probability in followed.items():
        found[_bundles(places)] = probability / total
    return found


def _bundles(places: Sequence[int]) -> Bundles:
    members: dict[int, list[int]] = {}
    for product, place in enumerate(places):
        members.setdefault(place, []).append(product)
    return tuple(tuple(bundle) for bundle in members.values() if len(bundle) > 1)


def mean_beliefs(beliefs: Sequence[Mapping[Bundles, float]]) -> dict[Bundles, float]:
    """What several readings of one session make likely together: the mean of their probabilities."""
    mean: dict[Bundles, float] = {}
    for one in beliefs:
        for bundles, probability in one.items():
            mean[bundles] = mean.get(bundles, 0.0) + probability / len(beliefs)
    return mean


def in_place(bundles: Bundles, order: Sequence[int]) -> Bundles:
    """Bundles of a session that was told in another order (see `kdjax.data.reorder`), by the products' own positions."""
    return tuple(sorted(tuple(sorted(order[product] for product in bundle)) for bundle in bundles))


def best_answer(beliefs: Mapping[Bundles, float], more: Iterable[Bundles] = ()) -> Bundles:
    """The answer whose strict F1 is highest in expectation over what is believed: minimum Bayes risk (Kumar & Byrne 2004).

    The answers to choose from are the groupings that are believed at all, and `more`; none of them empty, if there is one that is not.
    Of equals the likelier is chosen, then the first in order.
    """
    candidates = {bundles for bundles in (*beliefs, *more) if bundles}
    truths = [(bundles, list(map(frozenset, bundles)), share) for bundles, share in beliefs.items()]

    def expected(answer: Bundles) -> tuple[float, float]:
        named = list(map(frozenset, answer))
        f1 = sum(share * 2 * matched_overlap(named, true) / (len(named) + len(true)) for _, true, share in truths)
        return round(f1, 9), beliefs.get(answer, 0.0)

    return max(sorted(candidates), key=expected, default=())
