"""A small, complete run for the tests of tables and report: two domains, two baselines, all intervals."""

import copy

import pytest

from kdjax.evaluation import KINDS


def groups(f1, answered):
    return {
        "paper": {"precision": 0.711, "recall": 1.25, "coverage": 0.644, "n_answered": answered},
        "paper_all": {"precision": 0.6, "recall": 1.1, "coverage": 0.644},
        "strict": {
            "precision": 0.512,
            "recall": 0.478,
            "f1": f1,
            "exact_f1": 0.233,
            "pair_f1": 0.391,
            "valid_rate": answered / 10,
        },
    }


def result(n, f1):
    return {
        "n": n,
        **groups(f1, n),
        "before": groups(0.21, 7),
        "baselines": {"one pair | <b>TF-IDF</b> $x$": groups(0.55, n), "random pair": groups(0.102, n)},
        "errors": {
            system: {kind: index for index, kind in enumerate(KINDS)}
            for system in ("after", "before", "one pair | <b>TF-IDF</b> $x$", "random pair")
        },
        "intervals": {
            "after": [f1 - 0.05, f1 + 0.05],
            "before": [0.151, 0.268],
            "random pair": [0.05, 0.15],
            "after_minus_before": [0.28, 0.191, 0.372],
        },
    }


@pytest.fixture(scope="session")
def shared_metrics():
    """To be read only."""
    return {
        "test": result(20, 0.49),
        "domains": {"electronic": result(10, 0.45), "food": result(10, 0.53)},
        "train": {
            "steps": 40,
            "examples": 320,
            "real_tokens": 100_000,
            "padded_tokens": 120_000,
            "target_tokens": 3200,
            "seconds": 50.0,
            "compile_seconds": 71.4,
        },
        "time": {"train": 121.4, "generate": 3700.0},
    }


@pytest.fixture
def metrics(shared_metrics):
    """A copy that a test may change."""
    return copy.deepcopy(shared_metrics)
