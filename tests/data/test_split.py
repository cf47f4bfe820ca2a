"""The split and de-duplication rules, as properties."""

from hypothesis import given, settings
from hypothesis import strategies as st

from kdjax.data import Session
from kdjax.data.deduplicate import CONTAINING, DUPLICATE, deduplicate
from kdjax.data.split import hashed_split, official_split


def session(id: str, n_items: int, bundles: tuple = ()) -> Session:
    items = tuple(f"i{position}" for position in range(n_items))
    intents = tuple(f"intent {position}" for position in range(len(bundles)))
    return Session(id, items, items, ((),) * n_items, bundles, intents)


@st.composite
def length_lists(draw):
    """Session lengths in any order, with groups on both sides of 20 and 30 sessions."""
    counts = draw(st.lists(st.integers(0, 40), min_size=1, max_size=3))
    lengths = [length for length, count in enumerate(counts, start=2) for _ in range(count)]
    draw(st.randoms()).shuffle(lengths)
    return lengths


bundle_sets = st.lists(st.sets(st.integers(0, 5), min_size=2).map(lambda b: tuple(sorted(b))), min_size=1, max_size=8)


@settings(deadline=None)
@given(length_lists())
def test_official_split_takes_the_last_of_each_length(lengths):
    sessions = [session(f"s{number}", length) for number, length in enumerate(lengths)]
    splits = official_split(sessions)
    assert sorted(s.id for part in splits.values() for s in part) == sorted(s.id for s in sessions)
    for length in set(lengths):
        group = [s for s in sessions if len(s) == length]
        train, validation, test = (
            [s for s in splits[part] if len(s) == length] for part in ("train", "validation", "test")
        )
        assert train + validation + test == group
        assert len(test) == min(20, len(group)) and len(validation) == min(10, len(group) - len(test))
    assert all([len(s) for s in part] == sorted(len(s) for s in part) for part in splits.values())


@settings(deadline=None)
@given(st.sets(st.text(max_size=5), max_size=60), st.randoms())
def test_hashed_split_depends_on_the_ids_alone(ids, random):
    sessions = [session(id, 2) for id in sorted(ids)]
    shuffled = list(sessions)
    random.shuffle(shuffled)
    one, other = hashed_split(sessions), hashed_split(shuffled)
    assert {part: {s.id for s in one[part]} for part in one} == {part: {s.id for s in other[part]} for part in other}
    n = len(sessions)
    assert [len(part) for part in one.values()] == [7 * n // 10, 8 * n // 10 - 7 * n // 10, n - 8 * n // 10]
    assert all(part == [s for s in sessions if s in part] for part in one.values())


def test_hashed_split_by_hand():
    # sha256 begins: "a" ca97…, "b" 3e23…, "c" 2e7d…; so the order is c, b, a: ⌊2.1⌋ train, up to ⌊2.4⌋ validation
    splits = hashed_split([session(id, 2) for id in "abc"])
    assert [[s.id for s in part] for part in splits.values()] == [["b", "c"], [], ["a"]]


@settings(max_examples=200, deadline=None)
@given(bundle_sets)
def test_deduplicate_keeps_the_minimal_sets_once(bundles):
    before = session("s", 6, tuple(bundles))
    after, dropped = deduplicate(before)
    kept = [set(bundle) for bundle in after.bundles]
    assert all(not (a <= b) for i, a in enumerate(kept) for j, b in enumerate(kept) if i != j)
    assert all(any(k <= set(bundle) for k in kept) for bundle in bundles)
    assert dropped[DUPLICATE] == len(bundles) - len(set(bundles))
    assert dropped[DUPLICATE] + dropped[CONTAINING] + len(kept) == len(bundles)
    for bundle, intent in zip(after.bundles, after.intents):
        assert intent == f"intent {bundles.index(bundle)}"
    assert deduplicate(after)[0] == after


def test_deduplicate_by_hand():
    after, dropped = deduplicate(session("s", 5, ((0, 1, 2), (1, 2), (3, 4), (1, 2), (0, 1, 2))))
    assert after.bundles == ((1, 2), (3, 4)) and after.intents == ("intent 1", "intent 2")
    assert dropped == {DUPLICATE: 2, CONTAINING: 1}
