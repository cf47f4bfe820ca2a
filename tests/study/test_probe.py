"""The layers of a frozen student, compared on validation."""

import json

import numpy as np
import pytest

from kdjax.evaluation import score
from kdjax.prompting import Example
from kdjax.study.probe import judgement


def test_a_row_per_layer(launch, tmp_path):
    process = launch("probe.py:smoke", f"--workdir={tmp_path}")
    assert process.returncode == 0, process.stderr[-3000:]
    rows = json.loads((tmp_path / "probe.json").read_text())
    assert [row["layers"] for row in rows] == [1, 2] and "demo AUC" in process.stdout
    assert all(0 < row["domains"]["demo"]["auc"] < 1 and row["seconds"] > 0 for row in rows)
    assert rows[0]["domains"] != rows[1]["domains"]


def test_a_layer_that_is_not_there_is_named(launch, tmp_path):
    process = launch("probe.py:smoke", f"--workdir={tmp_path}", "--config.probe.layers=(3,)")
    assert process.returncode and "1 to 2" in process.stderr and not (tmp_path / "config.json").exists()


def test_judgements_by_hand():
    """Two sessions: one judged right, of one product too many is thought together in the other."""
    prompts = [
        Example("d", "s", "", (5,), products=((0, 1),) * 3, bundles=bundles) for bundles in (((0, 1),), ((1, 2),))
    ]
    log_odds = [np.array([[0, 2, -2], [2, 0, -2], [-2, -2, 0]]), np.array([[0, 3, 1], [3, 0, 3], [1, 3, 0]])]
    found = judgement(log_odds, prompts)
    assert found["auc"] == pytest.approx((4 + 4 - 1.5) / 8)  # of 2 × 4 comparisons: 3 beats 2 wrongly, and ties with 3
    probabilities = 1 / (1 + np.exp(-np.array([2, 2, 2, -3, -1, 3])))
    assert found["nll"] == pytest.approx(-np.log(probabilities).mean())
    assert found["f1"] == score([((0, 1),), ((0, 1, 2),)], [prompt.bundles for prompt in prompts])["strict"]["f1"]
