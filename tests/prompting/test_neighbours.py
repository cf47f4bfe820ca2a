"""Which sessions are near."""

import pytest

from kdjax.data import Session
from kdjax.prompting import Neighbours


def session(id, *titles):
    return Session(id, titles, titles, ((),) * len(titles))


TRAIN = [
    session("tea", "green tea", "tea pot"),
    session("coffee", "coffee mug", "espresso"),
    session("both", "tea mug", "coffee pot"),
]


def test_the_nearest_comes_first_and_the_order_of_products_does_not_matter():
    find = Neighbours(TRAIN)
    for asked in (session("x", "espresso cup", "coffee"), session("x", "coffee", "espresso cup")):
        assert [near.id for near in find(asked, 3)] == ["coffee", "both", "tea"]


def test_one_of_the_sessions_is_its_own_neighbour_unless_others_are_asked_for():
    find = Neighbours(TRAIN)
    assert [near.id for near in find(TRAIN[0], 3, others=True)] == ["both", "coffee"]
    assert [near.id for near in find(TRAIN[0], 3)] == ["tea", "both", "coffee"]


@pytest.mark.parametrize("train", [[], [session("empty", "", " ")]])
def test_sessions_without_words_are_no_error(train):
    assert len(Neighbours(train)(session("x", "coffee"), 2)) == len(train)
