"""From judged pairs to the groupings they make likely, and to the answer with the best expected strict F1."""

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdjax.decoding import NO_BUNDLE, best_answer, bundle_probabilities, likely_bundles, sure_answer
from kdjax.evaluation import score


def some_log_odds(n, seed, scale=2.0):
    upper = np.triu(np.random.default_rng(seed).normal(0, scale, (n, n)), k=1)
    return upper + upper.T


def by_enumeration(log_odds):
    """Over all ways to put n products into n bundles: each grouping's share of Σ exp(log-odds of what is together)."""
    n, found = len(log_odds), {}
    for places in product(range(n), repeat=n):
        groups = (tuple(i for i in range(n) if places[i] == place) for place in range(n))
        bundles = tuple(sorted(group for group in groups if len(group) > 1))
        pairs = (pair for bundle in bundles for pair in combinations(bundle, 2))
        found[bundles] = np.exp(sum(log_odds[pair] for pair in pairs))
    total = sum(found.values())
    return {bundles: share / total for bundles, share in found.items()}


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_up_to_five_products_all_groupings_are_found_with_their_probabilities(n, seed):
    log_odds = some_log_odds(n, seed)
    found, expected = likely_bundles(log_odds), by_enumeration(log_odds)
    assert found.keys() == expected.keys()
    assert found == pytest.approx(expected)


def test_of_many_products_the_likeliest_groupings_are_followed():
    """Two clear bundles and two loners among ten."""
    log_odds = np.full((10, 10), -3.0)
    for bundle in ((0, 3, 7), (1, 2, 4, 9)):
        log_odds[np.ix_(bundle, bundle)] = 3.0
    beliefs = likely_bundles(log_odds)
    assert max(beliefs, key=beliefs.get) == ((0, 3, 7), (1, 2, 4, 9)) == best_answer(beliefs)
    assert sum(beliefs.values()) == pytest.approx(1.0) and len(beliefs) == 65 and () in beliefs


def test_the_best_answer_is_better_in_expectation_than_any_other():
    beliefs = likely_bundles(some_log_odds(5, seed=3, scale=1.0))

    def expected(answer):
        return sum(share * score([answer], [truth])["strict"]["f1"] for truth, share in beliefs.items())

    assert expected(best_answer(beliefs)) == pytest.approx(max(expected(answer) for answer in beliefs if answer))


def test_of_equals_the_likelier_and_an_answer_is_never_empty_where_there_is_another():
    assert best_answer({((0, 1),): 0.6, ((0, 2),): 0.4}) == ((0, 1),)
    assert best_answer({(): 0.9, ((0, 1),): 0.1}) == ((0, 1),)
    assert best_answer({(): 1.0}) == ()
    either = {((0, 1),): 0.45, ((2, 3),): 0.45, ((0, 1), (2, 3)): 0.1}  # to name both is the better bet
    assert best_answer(either) == ((0, 1), (2, 3))


def test_no_bundle_is_an_answer_where_nothing_is_more_probable():
    """Four products of which nothing belongs together: the best expected F1 is of all four, with next to no probability."""
    beliefs = likely_bundles(np.full((4, 4), -2.0))
    assert beliefs[NO_BUNDLE] > 0.5
    assert best_answer(beliefs) != NO_BUNDLE == sure_answer(beliefs)


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 5), st.integers(0, 2**32 - 1), st.floats(0.0, 1.0))
def test_a_sure_answer_names_no_bundle_below_the_threshold_or_below_no_bundle(n, seed, least):
    beliefs = likely_bundles(some_log_odds(n, seed))
    probable = bundle_probabilities(beliefs)
    for bundle in sure_answer(beliefs, least):
        assert probable[bundle] >= max(least, beliefs[NO_BUNDLE])


def test_a_sure_answer_has_the_best_expected_f1_of_those_allowed():
    beliefs = likely_bundles(some_log_odds(5, seed=4))
    least, probable = 0.2, bundle_probabilities(beliefs)

    def expected(answer):
        return sum(
            share * (score([answer], [truth])["strict"]["f1"] if truth or answer else 1.0)
            for truth, share in beliefs.items()
        )

    allowed = [answer for answer in beliefs if all(probable[bundle] >= max(least, beliefs[()]) for bundle in answer)]
    assert expected(sure_answer(beliefs, least)) == pytest.approx(max(map(expected, allowed)))


def test_the_probability_of_a_bundle_is_that_of_all_groupings_with_it():
    beliefs = {((0, 1),): 0.5, ((0, 1), (2, 3)): 0.2, ((0, 1, 2),): 0.2, (): 0.1}
    assert bundle_probabilities(beliefs) == pytest.approx({(0, 1): 0.7, (2, 3): 0.2, (0, 1, 2): 0.2})
