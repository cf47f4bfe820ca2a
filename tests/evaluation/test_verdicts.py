"""Each kind of error on the smallest session that shows it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdjax.evaluation import KINDS, Verdict, errors_by_kind

CASES = [
    # predicted, truth, kinds; sessions of six products
    ([(0, 1)], [(0, 1)], ["right"]),
    ([(0, 1)], [(0, 1, 2)], ["missed product"]),
    ([(0, 1, 2)], [(0, 1)], ["wrong product"]),
    ([(0, 3)], [(0, 1, 2)], ["wrong product"]),
    ([(0, 1), (2, 3)], [(0, 1, 2, 3)], ["split", "split"]),
    ([(0, 1), (0, 1, 2)], [(0, 1, 2, 3)], ["missed product", "missed product"]),
    ([(0, 1, 2, 3)], [(0, 1), (2, 3)], ["merged"]),
    ([(0, 1, 2, 3, 4, 5)], [(0, 1), (2, 3)], ["whole session"]),
    ([(0, 1, 2, 3, 4, 5)], [(0, 1, 2, 3, 4, 5)], ["right"]),
    ([(4, 5)], [(0, 1)], ["wrong bundle", "missed bundle"]),
    ([], [(0, 1), (1, 2)], ["missed bundle", "missed bundle"]),
    ([(0, 1)], [(0, 1), (1, 2)], ["right", "missed bundle"]),
    ([(0, 1), (1, 0), (0, 1)], [(0, 1)], ["right"]),
    ([(0, 1)], [], ["wrong bundle"]),
    ([], [], []),
]


@pytest.mark.parametrize("predicted, truth, kinds", CASES)
def test_kinds(predicted, truth, kinds):
    assert [verdict.kind for verdict in errors_by_kind(predicted, truth, 6)] == kinds


def test_a_verdict_names_the_closest_true_bundle():
    assert errors_by_kind([(2, 0, 1), (5, 4)], [(0, 3), (0, 1), (4, 2, 3)], 6) == [
        Verdict("wrong product", (0, 1, 2), (0, 1)),
        Verdict("wrong product", (4, 5), (2, 3, 4)),
        Verdict("missed bundle", (), (0, 3)),
    ]


bundles = st.lists(st.frozensets(st.integers(0, 5), min_size=2).map(tuple), max_size=4, unique_by=frozenset)


@given(bundles, bundles)
def test_every_predicted_set_and_every_unfound_truth_gets_one_verdict(predicted, truth):
    verdicts = errors_by_kind(predicted, truth, 6)
    assert {v.kind for v in verdicts} <= set(KINDS)
    assert [set(v.predicted) for v in verdicts if v.kind != "missed bundle"] == [set(b) for b in predicted]
    for v in verdicts:
        assert (v.predicted == v.true) == (v.kind == "right")
    assert all(v.kind == "right" for v in errors_by_kind(truth, truth, 6))
