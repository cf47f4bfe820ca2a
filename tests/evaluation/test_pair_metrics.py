"""Metrics of judged pairs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdjax.evaluation import pair_metrics, reliability, share_a_bundle


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_auc_is_how_often_a_true_pair_is_ranked_above_a_false_one(seed):
    rng = np.random.default_rng(seed)
    labels, log_odds = np.r_[1.0, 0.0, rng.integers(0, 2, 20)], rng.normal(0, 2, 22).round(1)
    won = [np.sign(a - b) / 2 + 0.5 for a in log_odds[labels == 1] for b in log_odds[labels == 0]]
    found = pair_metrics(labels, log_odds)
    assert found["auc"] == pytest.approx(np.mean(won))
    p = 1 / (1 + np.exp(-log_odds))
    assert found["nll"] == pytest.approx(-np.mean(np.log(np.where(labels == 1, p, 1 - p))))
    assert found["n"] == 22


def test_of_pairs_of_one_kind_there_is_no_auc():
    assert pair_metrics(np.zeros(3), np.zeros(3)) == {"auc": None, "nll": pytest.approx(np.log(2)), "n": 3}


def test_pairs_that_share_a_bundle():
    assert share_a_bundle([(0, 2), (2, 1)], 4).tolist() == [0, 1, 0, 1, 0, 0]
    assert share_a_bundle([], 1).tolist() == []


def test_calibrated_probabilities_lie_on_the_diagonal():
    rng = np.random.default_rng(0)
    log_odds = rng.normal(0, 2, 40_000)
    labels = (rng.random(40_000) < 1 / (1 + np.exp(-log_odds))).astype(float)
    groups = reliability(labels, log_odds)
    assert [n for _, _, n in groups] == [4000] * 10
    assert [share for _, share, _ in groups] == pytest.approx([mean for mean, _, _ in groups], abs=0.03)
    assert sorted(groups) == groups
    assert sum(n for _, _, n in reliability(labels[:7], log_odds[:7])) == 7
