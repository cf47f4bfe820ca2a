"""Sessions to answer, as programs and logs have them."""

import json

import pytest

from kdjax.data import NewSessionReader, session_of_products
from kdjax.errors import InputError

GRINDER = {"id": "g", "title": "Burr  grinder", "categories": [["Kitchen", "Coffee"]]}
HOSE = {"id": "h", "title": "Garden hose"}


@pytest.fixture
def items(tmp_path):
    path = tmp_path / "items.jsonl"
    path.write_text("\n".join(map(json.dumps, (GRINDER, HOSE, {"id": "7", "title": "Cup"}))))
    return path


def read(reader, *rows):
    return [*reader.read((row if isinstance(row, str) else json.dumps(row) for row in rows), "sessions.jsonl")]


def test_items_are_looked_up_and_products_are_read_as_they_are(items):
    [named, held] = read(
        NewSessionReader(items), {"id": "a", "items": ["g", "h"]}, {"id": "b", "products": [GRINDER, {"title": "Cup"}]}
    )
    assert named.session.items == ("g", "h") and named.session.titles == ("Burr grinder", "Garden hose")
    assert named.session.categories == ((("Kitchen", "Coffee"),), ())
    assert held.session.items == ("g", "2") and held.session.titles == ("Burr grinder", "Cup")


# a line, what is counted, and the products that are read
ADAPTED = {
    "a product that comes twice": (
        {"id": "a", "items": ["g", "h", "g"]},
        "sessions with a repeated product",
        ("g", "h"),
    ),
    "one product": ({"id": "a", "items": ["g"]}, "sessions of fewer than two products", ("g",)),
    "no product": ({"id": "a", "items": []}, "sessions of fewer than two products", ()),
    "an integer id of the session": ({"id": 3, "items": ["g", "h"]}, "integer ids read as text", ("g", "h")),
    "an integer id of a product": ({"id": "a", "items": [7, "h"]}, "integer ids read as text", ("7", "h")),
    "a field that is not known": ({"id": "a", "time": 3, "items": ["g", "h"]}, "unknown fields left out", ("g", "h")),
    "an unknown field of a product": (
        {"id": "a", "products": [HOSE | {"price": 3}, GRINDER]},
        "unknown fields left out",
        ("h", "g"),
    ),
}


@pytest.mark.parametrize("case", ADAPTED)
def test_what_logs_hold_is_read_and_counted(items, case):
    row, note, products = ADAPTED[case]
    reader = NewSessionReader(items)
    [found] = read(reader, row)
    assert found.session.items == products and not found.error
    assert reader.notes == {note: 1}


@pytest.mark.parametrize("case", ADAPTED)
def test_strictly_it_is_an_error_with_its_line(items, case):
    with pytest.raises(InputError, match=r"sessions.jsonl, line 1: "):
        read(NewSessionReader(items, strict=True), ADAPTED[case][0])


# a line, and what its error says
FAULTS = {
    "not JSON": ('{"id": "a",', "line 2: "),
    "a list": ("[1]", "a JSON object"),
    "an unknown product": ({"id": "a", "items": ["g", "nowhere"]}, "the product 'nowhere' is not in "),
    "items and products": ({"id": "a", "items": ["g"], "products": []}, "either 'items'"),
    "neither": ({"id": "a"}, "either 'items'"),
    "items that are a text": ({"id": "a", "items": "g"}, "items is not a list"),
    "an id that is a list": ({"id": ["a"], "items": ["g", "h"]}, "is not an id"),
    "an id that is true": ({"id": True, "items": ["g", "h"]}, "is not an id"),
    "a blank id": ({"id": " ", "items": ["g", "h"]}, "is not an id"),
    "an item that is null": ({"id": "a", "items": ["g", None]}, "null is not an id"),
    "a product without a title": ({"id": "a", "products": [HOSE, {"name": "x"}]}, "product 2: its title is None"),
    "a product that is a text": ({"id": "a", "products": ["x", "y"]}, "product 1: 'x' is not an object"),
    "half a character": ('{"id": "a", "products": [{"title": "\\ud800"}, {"title": "x"}]}', "surrogate"),
    "categories that are a text": (
        {"id": "a", "products": [{"title": "x", "categories": "Kitchen"}, HOSE]},
        "its categories are 'Kitchen'",
    ),
    "a category path of numbers": (
        {"id": "a", "products": [{"title": "x", "categories": [[1]]}, HOSE]},
        "is not a list",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_line_that_cannot_be_read_has_its_reason_and_the_others_are_read(items, case):
    row, message = FAULTS[case]
    reader = NewSessionReader(items)
    first, bad, last = read(reader, {"id": "a", "items": ["g", "h"]}, row, {"id": "z", "items": ["h", "g"]})
    assert first.session and last.session and bad.session is None
    assert message in bad.error and "line 2" in bad.error
    assert reader.notes["lines that cannot be read"] == 1
    with pytest.raises(InputError, match="sessions.jsonl, line 1: "):
        read(NewSessionReader(items, strict=True), row)


@pytest.mark.parametrize(
    "lines, message",
    [
        ([HOSE, HOSE], "line 2: the id 'h' is in the file twice"),
        ([{"id": "x"}], "line 1: its title is None"),
        ([{"title": "x"}], "line 1: null is not an id"),
        ([], "has no products"),
    ],
    ids=["an id twice", "no title", "no id", "empty"],
)
def test_a_catalogue_must_be_whole(tmp_path, lines, message):
    path = tmp_path / "items.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(InputError, match=message):
        NewSessionReader(path)


def test_one_category_path_may_be_given_by_itself():
    session = session_of_products(
        [{"title": "x", "categories": ["Kitchen", "Coffee"]}, {"title": "y", "categories": None}]
    )
    assert session.categories == ((("Kitchen", "Coffee"),), ()) and session.items == ("1", "2")
