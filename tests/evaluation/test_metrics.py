"""Metrics against numbers worked out by hand, and the laws that they must obey."""

import json
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdjax.evaluation import STATISTICS, from_counts, score, session_counts
from kdjax.evaluation.metrics import jaccard

bundle = st.lists(st.integers(0, 6), min_size=1, max_size=4)  # repeats happen
answer = st.lists(bundle, max_size=4)
true_bundle = st.frozensets(st.integers(0, 6), min_size=2, max_size=4).map(lambda items: tuple(sorted(items)))
truths = st.lists(true_bundle, min_size=1, max_size=3, unique=True)
sessions = st.lists(st.tuples(answer, truths), min_size=1, max_size=5)


def test_score_by_hand():
    truth = [[(0, 1), (2, 3, 4)], [(0, 1, 2)], [(1, 2)]]
    predicted = [[(2, 3), (2, 3), (0, 4)], [(0, 1, 2)], [(1,)]]
    s = score(predicted, truth)
    assert s["paper"] == pytest.approx(
        {"precision": (2 / 3 + 1) / 2, "recall": (2 / 2 + 1) / 2, "coverage": (2 / 3 + 2 / 3 + 1) / 3, "n_answered": 2}
    )
    assert s["paper_all"] == pytest.approx(
        {"precision": (2 / 3 + 1) / 3, "recall": 2 / 3, "coverage": (2 / 3 + 2 / 3 + 1) / 3}
    )
    matched = (2 / 3 + 1 / 3) + 1 + 1 / 2
    assert s["strict"] == pytest.approx(
        {
            "precision": matched / 4,
            "recall": matched / 4,
            "f1": matched / 4,
            "exact_f1": 2 * 1 / (4 + 4),
            "pair_f1": 2 * 4 / (5 + 8),
            "valid_rate": 2 / 3,
        }
    )


def test_paper_recall_counts_predictions_and_passes_one():
    pairs = [(0, 1), (0, 2), (1, 2)]
    s = score([pairs], [[(0, 1, 2)]])
    assert s["paper"] == {"precision": 1.0, "recall": 3.0, "coverage": pytest.approx(2 / 3), "n_answered": 1}
    assert s["strict"]["recall"] == pytest.approx(2 / 3)


def test_paper_coverage_takes_the_first_true_bundle_that_holds_the_hit():
    larger_first = score([[(0, 1)]], [[(0, 1, 2, 3), (0, 1, 4)]])
    smaller_first = score([[(0, 1)]], [[(0, 1, 4), (0, 1, 2, 3)]])
    assert larger_first["paper"]["coverage"] == 2 / 4
    assert smaller_first["paper"]["coverage"] == 2 / 3


def test_a_product_listed_twice_passes_the_papers_filter_but_is_one_product():
    s = score([[(1, 1)]], [[(0, 1)]])
    assert s["paper"] == {"precision": 1.0, "recall": 1.0, "coverage": 0.5, "n_answered": 1}
    assert s["strict"]["valid_rate"] == 0.0
    assert s["strict"]["f1"] == 0.5


def test_assignment_is_optimal_where_greedy_is_not():
    # Greedy takes (0,1,2)-(0,1,2,3) at 3/4 and leaves (0,1,2,3,4,5) with (0,1): 2/6. The other way: 2/3 + 4/6.
    s = score([[(0, 1, 2), (0, 1, 2, 3, 4, 5)]], [[(0, 1, 2, 3), (0, 1)]])
    assert s["strict"]["f1"] == pytest.approx((2 / 3 + 4 / 6) / 2)


def test_precision_and_recall_have_their_own_denominators():
    s = score([[(0, 1)], []], [[(0, 1), (2, 3)], [(0, 1), (1, 2)]])["strict"]
    assert (s["precision"], s["recall"]) == (1.0, 0.25)
    assert s["f1"] == s["exact_f1"] == pytest.approx(2 * 1.0 * 0.25 / 1.25)
    assert s["valid_rate"] == 0.5


def test_zero_denominators_give_zero():
    assert set(score([], [])["strict"].values()) == {0.0}
    silent = score([[], []], [[(0, 1)], []])
    assert silent["paper"] == {"precision": 0.0, "recall": 0.0, "coverage": 0.0, "n_answered": 0}
    assert score([[(0, 1)]], [[]])["paper"]["recall"] == 0.0


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="1 sessions are predicted but 2"):
        score([[]], [[], []])


def test_scores_are_plain_numbers():
    assert json.loads(json.dumps(score([[(0, 1)]], [[(0, 1)]])))["paper"]["n_answered"] == 1


@given(sessions)
def test_the_truth_scores_one(data):
    truth = [t for _, t in data]
    s = score(truth, truth)
    assert s["strict"] == pytest.approx(dict.fromkeys(s["strict"], 1.0))
    assert (s["paper"]["precision"], s["paper"]["recall"]) == pytest.approx((1, 1))


@given(sessions)
def test_bounds(data):
    predicted, truth = zip(*data, strict=True)
    s = score(predicted, truth)
    capped = [*s["strict"].values(), s["paper"]["precision"], s["paper"]["coverage"], s["paper_all"]["precision"]]
    assert all(0 <= value <= 1 + 1e-12 for value in capped)
    assert s["strict"]["exact_f1"] <= s["strict"]["f1"] + 1e-12
    assert s["paper_all"]["precision"] <= s["paper"]["precision"]


@given(sessions, st.randoms(use_true_random=False))
def test_order_and_numbering_do_not_matter(data, random):
    shuffled = [
        ([random.sample(b, len(b)) for b in random.sample(p, len(p))], t) for p, t in random.sample(data, len(data))
    ]
    one_based = [([[i + 1 for i in b] for b in p], [[i + 1 for i in b] for b in t]) for p, t in shuffled]
    before, after = score(*zip(*data, strict=True)), score(*zip(*one_based, strict=True))
    for group in before:
        assert after[group] == pytest.approx(before[group])


@given(sessions, st.randoms(use_true_random=False))
def test_a_repeated_bundle_changes_the_paper_metrics_only(data, random):
    predicted, truth = zip(*data, strict=True)
    repeated = [p + [random.sample(b, len(b)) for b in p] for p in predicted]
    assert score(repeated, truth)["strict"] == score(predicted, truth)["strict"]
    assert score(repeated, truth)["paper"]["recall"] == pytest.approx(2 * score(predicted, truth)["paper"]["recall"])


@given(answer, truths)
def test_the_matched_overlap_is_the_best_of_all_assignments(predicted, truth):
    row = dict(zip(STATISTICS, session_counts([predicted], [truth])[0], strict=True))
    named, true = list({frozenset(b) for b in predicted}), list(map(frozenset, truth))
    few, many = sorted([named, true], key=len)
    best = max(sum(map(jaccard, few, chosen)) for chosen in permutations(many, len(few)))
    assert row["overlap"] == pytest.approx(best)


@given(sessions)
def test_summed_rows_score_as_the_sessions_do_and_arrays_as_their_rows(data):
    counts = session_counts(*zip(*data, strict=True))
    assert from_counts(counts.sum(axis=0)) == score(*zip(*data, strict=True))
    together = from_counts(counts)
    for i, session in enumerate(data):
        for group, values in score(*zip(session, strict=True)).items():
            assert {name: together[group][name][i] for name in values} == values


def test_rows_of_two_domains_pool():
    one, two = ([[(0, 1)]], [[(0, 1)]]), ([[(0, 1)], []], [[(0, 1, 2)], [(0, 1)]])
    rows = np.concatenate([session_counts(*one), session_counts(*two)])
    assert from_counts(rows.sum(axis=0)) == score(one[0] + two[0], one[1] + two[1])
