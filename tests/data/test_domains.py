"""The door, the identity and the console lines of a domain."""

from dataclasses import replace

import pytest

from kdjax.data import Domain, Session, describe, load_domain
from kdjax.data.fingerprint import fingerprint
from kdjax.errors import InputError


def test_an_unknown_source_names_the_valid_ones():
    with pytest.raises(InputError, match=r"no source 'csv'; valid are bundlerec, jsonl, demo, completejourney"):
        load_domain("csv", "", "demo")


def test_the_fingerprint_sees_every_field_and_the_split():
    session = Session("1", ("a", "b"), ("A", "B"), ((("X", "Y"),), ()), ((0, 1),), ("why",))
    changes = [
        {"id": "2"},
        {"items": ("a", "c")},
        {"titles": ("A", "C")},
        {"categories": ((("X",), ("Y",)), ())},
        {"bundles": ()},
        {"intents": ("",)},
    ]
    splits = [{"train": [session], "test": []}, {"train": [], "test": [session]}]
    splits += [{"train": [replace(session, **change)], "test": []} for change in changes]
    assert len({fingerprint(split) for split in splits}) == len(splits)
    assert fingerprint(splits[0]) == fingerprint({"train": [replace(session)], "test": []})


def test_describe():
    session = Session("1", ("a", "b", "c"), ("A", "B", "C"), ((), (), ()), ((0, 1), (1, 2)), ("", ""))
    splits = {"train": [session, replace(session, id="2")], "validation": [], "test": [replace(session, id="3")]}
    text = describe(Domain("toys", "demo", splits, "abcdef0123", {"odd ones": 4, "nothing": 0}, synthetic=True))
    assert text.splitlines() == [
        "toys (demo, synthetic, data abcdef01)",
        "  train          2 sessions      4 bundles",
        "  validation     0 sessions      0 bundles",
        "  test           1 sessions      2 bundles",
        "  products       3",
        "  left out: 4 odd ones",
    ]
    assert "synthetic" not in describe(Domain("toys", "jsonl", splits, "abcdef0123"))
