"""Frequent patterns: category multisets that many training bundles hold, e.g. "2 × Cases + Screen Protectors"."""

from collections import Counter
from collections.abc import Sequence
from itertools import chain

import numpy as np

from kdjax.data import Session, leaf_category
from kdjax.errors import InputError
from kdjax.knowledge.cards import Card
from kdjax.knowledge.protocols import CountTokens

Occurrence = tuple[str, int]  # ("Cases", 2) stands for a second product of the category Cases


def mine_patterns(
    sessions: Sequence[Session],
    domain: str,
    *,
    min_count: int,
    min_size: int = 2,
    max_size: int = 5,
    limit: int | None = None,
    count_tokens: CountTokens,
) -> list[Card]:
    """Mine the multisets of `min_size` to `max_size` leaf categories that at least `min_count` training bundles hold.

    Repeats count, as in the BundleRec authors' pattern mining: {Cases, Cases} is a pattern. Miners know only sets, so a
    category's k-th occurrence in a bundle is an item of its own. Products without a category are left out.
    Most supported first, then larger, then by text; at most `limit` cards, of which `support` counts the bundles and
    checks["size"] the products. Raises InputError for a `min_count` below 1 or sizes out of order.
    """
    if min_count < 1:
        raise InputError(f"min_count is {min_count}: a pattern has to be in at least 1 bundle")
    if not 1 <= min_size <= max_size:
        raise InputError(f"min_size {min_size} and max_size {max_size}: sizes have to be 1 ≤ min_size ≤ max_size")
    bundles = [(session.id, _occurrences(session, bundle)) for session in sessions for bundle in session.bundles]
    found = [
        (len(pattern), _card(pattern, [bundles[row][0] for row in rows], domain, count_tokens))
        for pattern, rows in _frequent([held for _, held in bundles], min_count, max_size)
        if len(pattern) >= min_size
    ]
    found.sort(key=lambda sized: (-sized[1].support, -sized[0], sized[1].text))
    return [card for _, card in found[:limit]]


def _occurrences(session: Session, bundle: tuple[int, ...]) -> frozenset[Occurrence]:
    counts = Counter(leaf for item in bundle if (leaf := leaf_category(session.categories[item])))
    return frozenset((leaf, k) for leaf, count in counts.items() for k in range(1, count + 1))


def _frequent(
    bundles: list[frozenset[Occurrence]], min_count: int, max_size: int
) -> list[tuple[frozenset[Occurrence], list[int]]]:
    """All sets of occurrences in at least `min_count` bundles that stand for a multiset (none with k + 1 but not k), and
    the bundles that hold each, by index."""
    import pandas as pd
    from mlxtend.frequent_patterns import fpgrowth

    counts = Counter(chain.from_iterable(bundles))
    columns = {one: place for place, one in enumerate(sorted(one for one in counts if counts[one] >= min_count))}
    if not columns:
        return []
    table = np.zeros((len(bundles), len(columns)), dtype=bool)
    for row, held in zip(table, bundles, strict=True):
        row[[columns[one] for one in held if one in columns]] = True
    support = (min_count - 0.5) / len(bundles)  # half a bundle below, because count / n · n can round above the count
    itemsets = fpgrowth(pd.DataFrame(table), min_support=support, max_len=max_size)["itemsets"]
    names = list(columns)
    found = [(frozenset(names[place] for place in itemset), [*itemset]) for itemset in itemsets]
    return [
        (pattern, np.flatnonzero(table[:, places].all(axis=1)).tolist())
        for pattern, places in found
        if all(k == 1 or (leaf, k - 1) in pattern for leaf, k in pattern)
    ]


def _card(pattern: frozenset[Occurrence], holders: list[str], domain: str, count_tokens: CountTokens) -> Card:
    counts = Counter(leaf for leaf, _ in pattern)
    text = " + ".join(leaf if counts[leaf] == 1 else f"{counts[leaf]} × {leaf}" for leaf in sorted(counts))
    return Card(
        format="patterns",
        domain=domain,
        text=text,
        sessions=tuple(dict.fromkeys(holders)),
        calls=(),
        support=len(holders),
        tokens=count_tokens(text),
        checks={"size": len(pattern)},
    )
