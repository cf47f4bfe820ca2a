"""Bootstrap against what theory says of a mean of coin throws; Holm against its published definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdjax.errors import InputError
from kdjax.evaluation import bootstrap_interval, from_counts, holm, paired_bootstrap, session_counts


def coins(heads):
    """Counts of sessions whose one prediction is right (True) or wrong: paper and exact metrics are Bernoulli means."""
    return session_counts([[(0, 1)] if right else [(2, 3)] for right in heads], [[(0, 1)]] * len(heads))


def test_the_interval_of_a_bernoulli_mean_is_close_to_the_normal_one():
    counts = coins([True] * 120 + [False] * 280)
    half_width = 1.96 * np.sqrt(0.3 * 0.7 / 400)
    expected = (0.3 - half_width, 0.3 + half_width)
    assert bootstrap_interval(counts, "paper.precision") == pytest.approx(expected, abs=0.006)
    low, high = bootstrap_interval(counts, "paper.precision", level=0.5)
    assert high - low == pytest.approx(2 * 0.6745 * half_width / 1.96, abs=0.006)


def test_the_interval_covers_the_true_value_about_as_often_as_it_says():
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(200):
        low, high = bootstrap_interval(coins(rng.random(80) < 0.4), "strict.exact_f1", resamples=400)
        covered += low <= 0.4 <= high
    assert 0.89 <= covered / 200 <= 0.99


def test_resampled_sums_are_the_sums_of_drawn_sessions():
    # With two sessions a resample holds the first 0, 1 or 2 times, so a metric takes only the values of those sums.
    counts = session_counts([[(0, 1)], [(0, 1), (2, 3)]], [[(0, 1)], [(0, 1, 2)]])
    possible = [from_counts(k * counts[0] + (2 - k) * counts[1])["strict"]["precision"] for k in range(3)]
    low, high = bootstrap_interval(counts, "strict.precision", level=0.999)
    assert (low, high) == pytest.approx((min(possible), max(possible)))


def test_equal_systems_do_not_differ():
    counts = coins([True, False, True, True])
    assert paired_bootstrap(counts, counts.copy(), "strict.f1") == (0.0, 0.0, 0.0, 1.0)


def test_a_constant_advantage_is_as_sure_as_the_resamples_allow():
    low = session_counts([[(0, 1, 2)]] * 30, [[(0, 1)]] * 30)
    high = session_counts([[(0, 1)]] * 30, [[(0, 1)]] * 30)
    result = paired_bootstrap(high, low, "strict.f1", resamples=500)
    assert result == pytest.approx((1 / 3, 1 / 3, 1 / 3, 2 / 501))


def test_rounding_is_no_difference():
    truth = [[(0, 1, 2), (3, 4, 5)]] * 7
    one_of_three = session_counts([[(0,), (1,), (2,)]] * 7, truth)
    nudged = one_of_three * (1 + 2**-52)
    assert paired_bootstrap(nudged, one_of_three, "strict.precision").p_value == 1.0


def test_pairing_removes_what_both_systems_share():
    rng = np.random.default_rng(0)
    a = rng.random(200) < 0.5
    b = a.copy()
    b[np.flatnonzero(a)[:10]] = False  # the same sessions are hard for both; b fails on ten more
    paired = paired_bootstrap(coins(a), coins(b), "paper_all.precision")
    unpaired = paired_bootstrap(coins(a), coins(rng.permutation(b)), "paper_all.precision")
    assert paired.low > 0 and paired.p_value < 0.01
    assert unpaired.low < 0 and unpaired.p_value > 0.05


def test_swapping_the_systems_mirrors_the_difference():
    rng = np.random.default_rng(1)
    a, b = coins(rng.random(60) < 0.5), coins(rng.random(60) < 0.6)
    forward, backward = paired_bootstrap(a, b, "strict.f1"), paired_bootstrap(b, a, "strict.f1")
    mirrored = (-backward.difference, -backward.high, -backward.low, backward.p_value)
    assert forward == pytest.approx(mirrored)


def test_without_a_difference_few_tests_reject():
    rng = np.random.default_rng(2)
    p_values = [
        paired_bootstrap(
            coins(rng.random(80) < 0.5), coins(rng.random(80) < 0.5), "paper.precision", resamples=400
        ).p_value
        for _ in range(200)
    ]
    assert 0.01 <= np.mean(np.array(p_values) < 0.05) <= 0.1
    assert 0.35 <= np.median(p_values) <= 0.7


def test_the_seed_fixes_the_result():
    counts = coins([True, False, False, True, True])
    assert bootstrap_interval(counts, "paper.recall", seed=3) == bootstrap_interval(counts, "paper.recall", seed=3)


def test_what_cannot_be_compared_is_refused():
    counts = coins([True, False])
    with pytest.raises(ValueError, match="2 and 1 sessions"):
        paired_bootstrap(counts, counts[:1], "strict.f1")
    with pytest.raises(ValueError, match="no sessions"):
        bootstrap_interval(counts[:0], "strict.f1")
    with pytest.raises(InputError, match=r"'strict.F1'.*strict\.f1"):
        bootstrap_interval(counts, "strict.F1")


def test_holm_by_hand():
    # sorted .005·4, .01·3, .03·2, then .04·1 raised to its predecessor
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_no_correction_and_bonferroni(p_values):
    for raw, adjusted in zip(p_values, holm(p_values), strict=True):
        assert raw <= adjusted <= min(1, raw * len(p_values))
    assert sorted(holm(p_values)) == holm(sorted(p_values))
