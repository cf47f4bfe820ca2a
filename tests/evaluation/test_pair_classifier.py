"""The trained floor: what it learns, and that it learns from training sessions alone."""

import numpy as np
import pytest

from kdjax.data import load_domain
from kdjax.data.sessions import Session
from kdjax.evaluation.pair_classifier import PairClassifier


def session(titles, bundles=()):
    return Session("s", tuple(titles), tuple(titles), ((),) * len(titles), tuple(bundles))


@pytest.mark.parametrize(("bundles", "always"), [((), 0.0), (((0, 1, 2),), 1.0)])
def test_pairs_of_one_kind_alone_teach_that_kind(bundles, always):
    judge = PairClassifier([session(["a b", "a c", "d"], bundles)], seed=0)
    assert judge(session(["a b", "x"])).tolist() == [always]
    assert PairClassifier([], seed=0)(session(["a", "b"])).tolist() == [0.0]
    assert not len(judge(session(["a"])))


def test_it_learns_what_belongs_together_from_training_sessions_alone():
    splits = load_domain("demo", "", "demo").splits
    judge = PairClassifier(splits["train"], seed=0)
    unseen = splits["test"]
    together, apart = [], []
    for one in unseen:
        shared = {(i, j) for bundle in one.bundles for i in bundle for j in bundle}
        pairs = [(i, j) for i in range(len(one)) for j in range(i + 1, len(one))]
        for pair, judged in zip(pairs, judge(one), strict=True):
            (together if pair in shared else apart).append(judged)
    assert np.mean(together) > 0.2 + np.mean(apart)
    again = PairClassifier(splits["train"], seed=0)
    np.testing.assert_array_equal(judge(unseen[0]), again(unseen[0]))
