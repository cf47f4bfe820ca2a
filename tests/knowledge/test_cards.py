import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdjax.errors import InputError
from kdjax.knowledge import Card, read_cards, write_cards

RULE = Card("rules", "demo", "Cables go with what they connect.", ("s1", "s2"), ("k1",), 2, 6, {"effect": 0.25})


def test_id_depends_on_what_is_said_and_not_on_where_it_came_from():
    assert len(RULE.id) == 12
    assert dataclasses.replace(RULE, sessions=("s9",), support=1, tokens=0, checks={}).id == RULE.id
    for change in ({"format": "patterns"}, {"domain": "food"}, {"text": "Cables go."}):
        assert dataclasses.replace(RULE, **change).id != RULE.id
    assert RULE.id == "2d69b74712ef"  # other files name cards by it, so it stays over versions


def test_equal_thoughts_of_two_sessions_are_two_cards():
    thought = dataclasses.replace(RULE, format="thoughts", sessions=("s1",))
    assert dataclasses.replace(thought, sessions=("s2",)).id != thought.id


cards = st.builds(
    Card,
    format=st.sampled_from(["patterns", "rules", "thoughts"]),
    domain=st.text("ab", min_size=1),
    text=st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip),
    sessions=st.lists(st.text("s123"), max_size=3).map(tuple),
    calls=st.lists(st.text("k123"), max_size=3).map(tuple),
    support=st.integers(0, 9),
    tokens=st.integers(0, 9),
    checks=st.dictionaries(st.sampled_from(["effect", "finished"]), st.booleans() | st.floats(-1, 1)),
)


@given(st.lists(cards, max_size=4))
def test_written_cards_read_back_equal(tmp_path_factory, some):
    path = tmp_path_factory.mktemp("cards") / "knowledge" / "rules.jsonl"
    write_cards(path, some)
    assert read_cards(path) == some


def test_a_line_holds_id_and_fields(tmp_path):
    write_cards(tmp_path / "rules.jsonl", [RULE])
    row = json.loads((tmp_path / "rules.jsonl").read_text())
    assert row["id"] == RULE.id
    assert list(row)[1:] == [field.name for field in dataclasses.fields(Card)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "rule"}, '"format"'),
        ({"text": "  "}, '"text"'),
        ({"sessions": "s1"}, '"sessions"'),
        ({"sessions": [1]}, '"sessions"'),
        ({"support": True}, '"support"'),
        ({"tokens": -1}, '"tokens"'),
        ({"checks": []}, '"checks"'),
        ({"suport": 1}, 'unknown field "suport"'),
        ({"text": "Edited by hand."}, '"id"'),
    ],
)
def test_errors_name_file_row_and_field(tmp_path, change, said):
    path = tmp_path / "rules.jsonl"
    write_cards(path, [RULE, RULE])
    first, second = path.read_text().splitlines()
    path.write_text(first + "\n" + json.dumps(json.loads(second) | change) + "\n")
    with pytest.raises(InputError) as error:
        read_cards(path)
    assert f"{path}, row 2: " in str(error.value)
    assert said in str(error.value)


def test_a_missing_field_is_named(tmp_path):
    path = tmp_path / "rules.jsonl"
    write_cards(path, [RULE])
    row = json.loads(path.read_text())
    del row["support"]
    path.write_text(json.dumps(row))
    with pytest.raises(InputError, match='row 1: the field "support" is missing'):
        read_cards(path)
