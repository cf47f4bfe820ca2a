from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from knowledge_helpers import make_session, words

from kdjax.data import leaf_category, load_domain
from kdjax.errors import InputError
from kdjax.knowledge import mine_patterns


def brute_force(sessions, min_count, min_size, max_size):
    """multiset (sorted tuple) → number of bundles that hold it, by listing every sub-multiset of every bundle."""
    counts = Counter()
    for session in sessions:
        for bundle in session.bundles:
            leaves = sorted(leaf for item in bundle if (leaf := leaf_category(session.categories[item])))
            counts.update({held for size in range(min_size, max_size + 1) for held in combinations(leaves, size)})
    return {held: count for held, count in counts.items() if count >= min_count}


def multiset(card):
    parts = [part.split(" × ") for part in card.text.split(" + ")]
    return tuple(sorted(leaf for part in parts for leaf in part[-1:] * (int(part[0]) if len(part) == 2 else 1)))


@st.composite
def random_sessions(draw):
    sessions = []
    for number in range(draw(st.integers(0, 5))):
        leaves = draw(st.lists(st.sampled_from(["A", "B", "C", None]), min_size=2, max_size=7))
        bundle = st.sets(st.integers(0, len(leaves) - 1), min_size=2).map(lambda items: tuple(sorted(items)))
        bundles = draw(st.lists(bundle, max_size=3))
        sessions.append(make_session(f"s{number}", [f"title {leaf}" for leaf in leaves], bundles, leaves))
    return sessions


@given(random_sessions(), st.integers(1, 4), st.integers(1, 3), st.integers(0, 3))
def test_patterns_and_supports_equal_brute_force(sessions, min_count, min_size, more):
    sizes = {"min_size": min_size, "max_size": min_size + more}
    cards = mine_patterns(sessions, "demo", min_count=min_count, **sizes, count_tokens=words)
    assert {multiset(card): card.support for card in cards} == brute_force(sessions, min_count, **sizes)
    assert all(len(multiset(card)) == card.checks["size"] for card in cards)


def test_text_sessions_support_and_order():
    sessions = [
        make_session("a", "wxyz", [(0, 1, 2)], ["Screens", "Cases", "Cases", None]),
        make_session("b", "wxyz", [(0, 1), (0, 2, 3)], ["Screens", "Cases", "Cases", None]),
        make_session("c", "xy", [(0, 1)], ["Cases", "Cases"]),
        make_session("d", "xy", [], ["Cases", "Cases"]),
    ]
    cards = mine_patterns(sessions, "demo", min_count=2, count_tokens=words)
    assert [(card.text, card.support, card.sessions) for card in cards] == [
        ("Cases + Screens", 3, ("a", "b")),  # b bundles the pair twice
        ("2 × Cases", 2, ("a", "c")),
    ]
    assert cards[0].tokens == 3
    assert cards[0].calls == ()
    larger = mine_patterns(sessions, "demo", min_count=1, count_tokens=words)
    assert [card.text for card in larger] == ["Cases + Screens", "2 × Cases", "2 × Cases + Screens"]
    assert mine_patterns(sessions, "demo", min_count=1, limit=1, count_tokens=words) == larger[:1]


def test_larger_patterns_come_first_at_equal_support():
    session = make_session("a", "xyz", [(0, 1, 2)], ["A", "B", "C"])
    cards = mine_patterns([session, session], "demo", min_count=2, count_tokens=words)
    assert [card.text for card in cards] == ["A + B + C", "A + B", "A + C", "B + C"]


@pytest.mark.parametrize("total", [49, 93, 107])
def test_a_pattern_exactly_at_the_count_stays(total):
    """count / total · total is above the count in floating point for some of these."""
    pair = make_session("p", "xy", [(0, 1)], ["A", "B"])
    other = make_session("o", "xy", [(0, 1)], ["C", "D"])
    for count in range(1, total // 2):
        cards = mine_patterns([pair] * count + [other] * (total - count), "demo", min_count=count, count_tokens=words)
        assert "A + B" in {card.text for card in cards}
        cards = mine_patterns(
            [pair] * count + [other] * (total - count), "demo", min_count=count + 1, count_tokens=words
        )
        assert "A + B" not in {card.text for card in cards}


@pytest.mark.parametrize("wrong", [{"min_count": 0}, {"min_count": 1, "min_size": 3, "max_size": 2}])
def test_thresholds_out_of_range_are_errors(wrong):
    with pytest.raises(InputError):
        mine_patterns([], "demo", **wrong, count_tokens=words)


def test_electronic_has_the_known_number_of_patterns(bundlerec):
    """71 pairs and 17 triples at a support of 0.005 of 949 bundles, counted by other code."""
    train = load_domain("bundlerec", str(bundlerec), "electronic").splits["train"]
    cards = mine_patterns(train, "electronic", min_count=5, count_tokens=words)
    sizes = Counter(card.checks["size"] for card in cards)
    assert (sizes[2], sizes[3]) == (71, 17)
    assert cards[0].text == "2 × Cases"
    assert {multiset(card): card.support for card in cards} == brute_force(train, 5, 2, 5)
