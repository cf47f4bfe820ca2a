"""From links to the groupings they make likely, and to the answer with the best expected strict F1."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdjax.data import Session, reorder
from kdjax.decoding import best_answer, in_place, likely_bundles, mean_beliefs, pair_probabilities
from kdjax.evaluation import score


def some_links(n, seed):
    links = np.tril(np.random.default_rng(seed).uniform(size=(n, n)))
    links[0, 0] = 1.0
    return links / links.sum(axis=1, keepdims=True)


def by_enumeration(links):
    """Over all ways to choose: the probability of each set of bundles."""
    found = {}
    for named in product(*(range(i + 1) for i in range(len(links)))):
        bundle = list(range(len(links)))
        for i, number in enumerate(named):
            if number:
                bundle[i] = bundle[number - 1]
        groups = (tuple(np.flatnonzero(np.equal(bundle, b)).tolist()) for b in sorted(set(bundle)))
        bundles = tuple(sorted(group for group in groups if len(group) > 1))
        found[bundles] = found.get(bundles, 0.0) + np.prod([links[i, number] for i, number in enumerate(named)])
    return found


@given(st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_up_to_five_products_all_groupings_are_found_with_their_probabilities(n, seed):
    links = some_links(n, seed)
    found, expected = likely_bundles(links), by_enumeration(links)
    assert found.keys() == expected.keys()
    assert found == pytest.approx(expected)


@settings(max_examples=20, deadline=None)
@given(st.integers(6, 10), st.integers(0, 2**32 - 1))
def test_of_many_products_the_groupings_followed_say_nearly_what_all_do(n, seed):
    """Links as a trained student has them: most of the weight on one choice."""
    links = some_links(n, seed) ** 8
    links /= links.sum(axis=1, keepdims=True)
    beliefs = likely_bundles(links, width=512)
    assert sum(beliefs.values()) == pytest.approx(1.0)
    together = np.eye(n)
    for bundles, share in beliefs.items():
        for bundle in bundles:
            together[np.ix_(bundle, bundle)] += share * (1 - np.eye(len(bundle)))
    np.testing.assert_allclose(together, pair_probabilities(links), atol=0.15)


def test_the_best_answer_is_better_in_expectation_than_any_other():
    links = some_links(5, seed=3)
    beliefs = likely_bundles(links)

    def expected(answer):
        return sum(share * score([answer], [truth])["strict"]["f1"] for truth, share in beliefs.items())

    best = best_answer(beliefs)
    assert expected(best) == pytest.approx(max(expected(answer) for answer in beliefs if answer))


def test_of_equals_the_likelier_and_an_answer_is_never_empty_where_there_is_another():
    assert best_answer({((0, 1),): 0.6, ((0, 2),): 0.4}) == ((0, 1),)
    assert best_answer({(): 0.9, ((0, 1),): 0.1}) == ((0, 1),)
    assert best_answer({(): 1.0}) == ()
    either = {((0, 1),): 0.5, ((2, 3),): 0.5}  # to name both is the better bet, 2/3 for sure
    assert best_answer(either, more=[((0, 1), (2, 3))]) == ((0, 1), (2, 3))


def test_readings_are_averaged():
    mean = mean_beliefs([{((0, 1),): 1.0}, {((0, 1),): 0.5, ((1, 2),): 0.5}])
    assert mean == pytest.approx({((0, 1),): 0.75, ((1, 2),): 0.25})


@given(st.permutations(range(5)))
def test_bundles_of_another_order_are_put_back_in_place(order):
    empty = ((),) * 5
    session = Session("s", tuple("abcde"), tuple("abcde"), empty, ((0, 3), (1, 2, 4)))
    told = reorder(session, order)
    assert in_place(told.bundles, order) == session.bundles
