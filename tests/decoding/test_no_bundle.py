"""The calibrated probability that a session has no bundle."""

import numpy as np
import pytest

from kdjax.decoding import NO_BUNDLE, NoBundle, fit_no_bundle

BELIEFS = {(): 0.2, ((0, 1),): 0.6, ((0, 1, 2),): 0.2}


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def drawn(scale, bias, n, seed=0):
    """Sessions whose true probability of no bundle is σ(scale · log-odds of what is believed + bias)."""
    rng = np.random.default_rng(seed)
    believed = rng.uniform(0.01, 0.99, n)
    truth = rng.random(n) < sigmoid(scale * np.log(believed / (1 - believed)) + bias)
    return believed[truth], believed[~truth]


def test_the_default_changes_nothing():
    assert NoBundle()(BELIEFS) == BELIEFS


def test_the_others_share_what_is_left_as_before():
    after = NoBundle(scale=1.0, bias=1.5, sessions=20)(BELIEFS)
    assert after[NO_BUNDLE] == pytest.approx(sigmoid(np.log(0.2 / 0.8) + 1.5))
    assert sum(after.values()) == pytest.approx(1.0)
    assert after[((0, 1),)] / after[((0, 1, 2),)] == pytest.approx(3.0)


def test_the_map_that_sessions_were_drawn_by_is_found():
    without, having = drawn(0.7, -1.0, 20_000)
    fitted = fit_no_bundle(without, having, share=len(without) / 20_000)
    assert (fitted.scale, fitted.bias) == pytest.approx((0.7, -1.0), abs=0.1)
    assert fitted.sessions == len(without)


def test_the_share_of_sessions_without_a_bundle_is_that_of_the_data_not_of_the_sample():
    without, having = drawn(1.0, 0.0, 4000)
    rare = fit_no_bundle(without, having, share=0.05)
    mean = np.average(
        sigmoid(rare.scale * np.log(np.r_[without, having] / (1 - np.r_[without, having])) + rare.bias),
        weights=np.r_[np.full(len(without), 0.05 / len(without)), np.full(len(having), 0.95 / len(having))],
    )
    assert mean == pytest.approx(0.05, abs=0.005)


def test_too_few_sessions_or_beliefs_that_say_the_opposite_change_nothing():
    assert fit_no_bundle([0.9] * 9, [0.1] * 50, share=0.2) == NoBundle()
    assert fit_no_bundle([0.9] * 50, [0.1] * 9, share=0.2) == NoBundle()
    assert fit_no_bundle([0.1, 0.2] * 20, [0.8, 0.9] * 20, share=0.5) == NoBundle()
