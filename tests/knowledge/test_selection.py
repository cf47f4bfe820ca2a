from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from knowledge_helpers import make_session

from kdjax.errors import InputError
from kdjax.knowledge import STRATEGIES, sample_sessions

SESSIONS = [
    make_session(f"s{number}", [f"word{(number * item) % 13} item" for item in range(2 + number % 3)])
    for number in range(40)
]
DIFFICULTY = {session.id: number % 5 / 5 for number, session in enumerate(SESSIONS)}


@given(st.sampled_from(STRATEGIES), st.integers(0, 3), st.integers(1, 40), st.integers(1, 40))
def test_samples_are_nested_and_keep_the_order(strategy, seed, one, other):
    few, many = (
        sample_sessions(SESSIONS, count=count, strategy=strategy, seed=seed, difficulty=DIFFICULTY)
        for count in sorted((one, other))
    )
    assert len(few) == min(one, other)
    assert {session.id for session in few} <= {session.id for session in many}
    assert [session for session in SESSIONS if session in many] == many


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_seed_decides(strategy):
    samples = [
        sample_sessions(SESSIONS, count=10, strategy=strategy, seed=seed, difficulty=DIFFICULTY) for seed in (1, 1, 2)
    ]
    assert samples[0] == samples[1] != samples[2]


@pytest.mark.parametrize(("ratio", "count"), [(1.0, 40), (0.25, 10), (0.1, 4), (0.001, 1)])
def test_a_ratio_is_rounded_to_sessions(ratio, count):
    assert len(sample_sessions(SESSIONS, ratio=ratio)) == count


def test_more_than_all_is_all():
    assert sample_sessions(SESSIONS, count=99, strategy="diversity") == SESSIONS
    assert sample_sessions([], count=1, strategy="diversity") == []


def test_length_keeps_the_proportions():
    lengths = [2] * 40 + [5] * 20 + [9] * 20
    sessions = [make_session(f"s{number}", ["x"] * length) for number, length in enumerate(lengths)]
    for count in (4, 8, 20, 40):
        sample = sample_sessions(sessions, count=count, strategy="length", seed=3)
        assert Counter(map(len, sample)) == {2: count // 2, 5: count // 4, 9: count // 4}


def test_diversity_takes_the_farthest_session_next():
    titles = {"a": "red cable", "b": "red cable", "c": "red plug", "d": "tea", "e": "red cable plug"}
    sessions = [make_session(id, [title]) for id, title in titles.items()]
    for seed in range(5):
        two = {s.titles[0] for s in sample_sessions(sessions, count=2, strategy="diversity", seed=seed)}
        assert len(two) == 2
        assert "tea" in two
        four = {s.titles[0] for s in sample_sessions(sessions, count=4, strategy="diversity", seed=seed)}
        assert len(four) == 4  # the equal one is the last to come


def test_difficulty_takes_the_hardest():
    sample = sample_sessions(SESSIONS, count=8, strategy="difficulty", difficulty=DIFFICULTY)
    assert {DIFFICULTY[session.id] for session in sample} == {0.8}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({}, "either a ratio or a count"),
        ({"ratio": 0.5, "count": 3}, "either a ratio or a count"),
        ({"ratio": 0.0}, "ratio is 0.0"),
        ({"ratio": 1.5}, "ratio is 1.5"),
        ({"count": 0}, "count is 0"),
        ({"count": 1, "strategy": "lenght"}, "random, length, diversity, difficulty"),
        ({"count": 1, "strategy": "difficulty"}, "needs the difficulty"),
        ({"count": 1, "strategy": "difficulty", "difficulty": {"s0": 1.0}}, '"s1" has no difficulty'),
    ],
)
def test_what_cannot_be_sampled_is_an_error(wrong, said):
    with pytest.raises(InputError, match=said):
        sample_sessions(SESSIONS, **wrong)
