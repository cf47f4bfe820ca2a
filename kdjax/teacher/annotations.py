"""Rules and thoughts from the annotations alone, without a model: the floor that an LLM teacher must beat."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

from kdjax.data import Session, leaf_category

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
Pair = tuple[str, str]  # two leaf categories, in alphabetical order


class AnnotationRule(NamedTuple):
    """A rule in words. `support` is the number of sessions that it rests on, `session_ids` are those sessions."""

    text: str
    support: int
    session_ids: tuple[str, ...]


def annotation_rules(sessions: Sequence[Session], limit: int) -> list[AnnotationRule]:
    """At most `limit` rules out of training sessions: what holds for most of them, then pairs of categories.

    A pair of leaf categories is in a session when two of its products have them. Of the sessions that hold the pair,
    some bundle it; the lift is that share over the same share for all pairs alike (within one category, or across two).
    Pairs come by their excess, the number of sessions that bundle them beyond what that share leads one to expect (lift
    alone would put pairs met once on top). A pair that is never bundled although at least one session was expected to
    is a rule too.
    """
    shared, bundled = _pairs(sessions)
    rules = _size_rules(sessions) + _same_category_rule(shared, bundled) + _pair_rules(shared, bundled)
    return rules[:limit]


def annotation_thought(session: Session) -> str:
    """A short reasoning from products to intents: which products serve which intent, which none (1-based numbers)."""
    sentences = []
    for bundle, intent in sorted(zip(session.bundles, session.intents, strict=True)):
        intent = " ".join(intent.split()).rstrip(".")
        sentences.append(
            f'{_products(bundle)} serve "{intent}".' if intent else f"{_products(bundle)} belong together."
        )
    left = sorted(set(range(len(session))) - {item for bundle in session.bundles for item in bundle})
    if left:
        sentences.append(f"{_products(left)} {'fits' if len(left) == 1 else 'fit'} no bundle.")
    return " ".join(sentences)


def _pairs(sessions: Sequence[Session]) -> tuple[dict[Pair, list[str]], dict[Pair, list[str]]]:
    """The ids of the sessions that hold each pair of categories, and of those that bundle it."""
    shared, bundled = defaultdict(list), defaultdict(list)
    for session in sessions:
        leaves = [leaf_category(paths) for paths in session.categories]
        in_session: dict[Pair, bool] = {}
        for i, j in combinations(range(len(session)), 2):
            first, second = leaves[i], leaves[j]
            if first and second:
                pair = min(first, second), max(first, second)
                together = any(i in bundle and j in bundle for bundle in session.bundles)
                in_session[pair] = in_session.get(pair, False) or together
        for pair, together in in_session.items():
            shared[pair].append(session.id)
            if together:
                bundled[pair].append(session.id)
    return shared, bundled


def _size_rules(sessions: Sequence[Session]) -> list[AnnotationRule]:
    """What more than half of the bundles or sessions have in common."""
    rules = []
    sizes = Counter(len(bundle) for session in sessions for bundle in session.bundles)
    for size, count in sizes.items():
        if 2 * count > sizes.total():
            holders = [session for session in sessions if any(len(bundle) == size for bundle in session.bundles)]
            rules.append(_rule(f"Most bundles hold {_number(size)} products.", holders))
    counts = Counter(len(session.bundles) for session in sessions)
    for count, often in counts.items():
        if 2 * often > len(sessions):
            like = [session for session in sessions if len(session.bundles) == count]
            rules.append(_rule(f"Most sessions hold {_number(count)} {'bundle' if count == 1 else 'bundles'}.", like))
    rest = [
        session for session in sessions if len({item for bundle in session.bundles for item in bundle}) < len(session)
    ]
    if 2 * len(rest) > len(sessions):
        rules.append(_rule("Most sessions hold products that fit no bundle: leave them out.", rest))
    return rules


def _same_category_rule(shared: dict[Pair, list[str]], bundled: dict[Pair, list[str]]) -> list[AnnotationRule]:
    same = [pair for pair in shared if pair[0] == pair[1]]
    ids = sorted({session for pair in same for session in bundled.get(pair, ())})
    if 2 * sum(len(bundled.get(pair, ())) for pair in same) <= sum(len(shared[pair]) for pair in same):
        return []
    return [AnnotationRule("Products of one category usually belong together.", len(ids), tuple(ids))]


def _pair_rules(shared: dict[Pair, list[str]], bundled: dict[Pair, list[str]]) -> list[AnnotationRule]:
    expected_share = {}
    for same in (True, False):
        kind = [pair for pair in shared if (pair[0] == pair[1]) is same]
        total = sum(len(shared[pair]) for pair in kind)
        expected_share[same] = sum(len(bundled.get(pair, ())) for pair in kind) / total if total else 0.0
    ranked = []
    for pair, holders in shared.items():
        ids = bundled.get(pair, [])
        excess = len(ids) - expected_share[pair[0] == pair[1]] * len(holders)
        other = "each other" if pair[0] == pair[1] else f'"{pair[1]}"'
        if len(ids) > 1 and excess >= 1:
            ranked.append((-excess, AnnotationRule(f'Bundle "{pair[0]}" with {other}.', len(ids), tuple(ids))))
        elif not ids and excess <= -1:
            ranked.append(
                (excess, AnnotationRule(f'Do not bundle "{pair[0]}" with {other}.', len(holders), tuple(holders)))
            )
    return [rule for _, rule in sorted(ranked)]


def _rule(text: str, holders: Sequence[Session]) -> AnnotationRule:
    return AnnotationRule(text, len(holders), tuple(session.id for session in holders))


def _number(count: int) -> str:
    return NUMBERS[count] if count < len(NUMBERS) else str(count)


def _products(positions: Sequence[int]) -> str:
    numbers = [str(position + 1) for position in positions]
    if len(numbers) == 1:
        return f"Product {numbers[0]}"
    return f"Products {', '.join(numbers[:-1])} and {numbers[-1]}"
