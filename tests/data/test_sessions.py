import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdjax.data import Session, reorder

SESSION = Session(
    "s", ("a", "b", "c", "d"), ("A", "B", "C", "D"), ((("x",),), (), (), ()), ((0, 2), (1, 3)), ("i", "j")
)


@given(st.permutations(range(4)))
def test_reordering_changes_places_and_nothing_else(order):
    told = reorder(SESSION, order)
    assert told.items == tuple(SESSION.items[i] for i in order)
    assert (told.id, told.intents) == (SESSION.id, SESSION.intents)
    for name in ("titles", "categories"):
        of = dict(zip(SESSION.items, getattr(SESSION, name), strict=True))
        assert dict(zip(told.items, getattr(told, name), strict=True)) == of
    for before, after in zip(SESSION.bundles, told.bundles, strict=True):
        assert list(after) == sorted(after)
        assert {told.items[i] for i in after} == {SESSION.items[i] for i in before}
    back = [order.index(i) for i in range(4)]
    assert reorder(told, back) == SESSION


@pytest.mark.parametrize("order", [[0, 1, 2], [0, 1, 2, 2], [1, 2, 3, 4], [0, 1, 2, 3, 3]])
def test_what_is_no_order_is_refused(order):
    with pytest.raises(ValueError, match="not an order of 4 products"):
        reorder(SESSION, order)
