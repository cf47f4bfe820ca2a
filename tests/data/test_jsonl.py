"""One's own data: what is written is what is read, and every fault names file, line and field."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdjax.data import jsonl, load_domain
from kdjax.data.files import is_missing
from kdjax.errors import InputError

ITEMS = [
    {"id": "g", "title": "Norden  Coffee\nGrinder", "categories": [["Kitchen", "Coffee Grinders"], ["Gifts"]]},
    {"id": "b", "title": "Velta Dark Roast Beans", "categories": []},
    {"id": "t", "title": "Tarn Dome Tent"},
]
SESSIONS = [
    {"id": "s1", "items": ["t", "g", "b"], "bundles": [["b", "g"]], "intents": ["coffee bar"], "split": "test"},
    {"id": "s2", "items": ["g", "b"], "split": "train"},
    {"id": "s3", "items": ["g", "t"], "bundles": [["g", "t"], ["t", "g"]], "split": "train"},
]


def write(folder: Path, items: list, sessions: list) -> Path:
    folder.mkdir(exist_ok=True)
    for name, rows in (("items.jsonl", items), ("sessions.jsonl", sessions)):
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def load(folder: Path):
    return load_domain("jsonl", str(folder.parent), folder.name)


def test_a_small_domain_by_hand(tmp_path):
    domain = load(write(tmp_path / "mine", ITEMS, SESSIONS))
    assert domain.name == "mine" and domain.source == "jsonl" and not domain.synthetic
    (s3,), validation, (s1,) = domain.splits.values()
    assert validation == []
    assert s1.titles == ("Tarn Dome Tent", "Norden Coffee Grinder", "Velta Dark Roast Beans")
    assert s1.categories == ((), (("Kitchen", "Coffee Grinders"), ("Gifts",)), ())
    assert s1.bundles == ((1, 2),) and s1.intents == ("coffee bar",)
    assert s3.bundles == ((0, 1),) and s3.intents == ("",)
    assert domain.left_out["sessions without a bundle"] == 1 and domain.left_out["exact duplicate bundles"] == 1


def test_without_a_split_the_hash_of_the_id_decides(tmp_path):
    sessions = [{"id": f"s{n}", "items": ["g", "t"], "bundles": [["g", "t"]]} for n in range(20)]
    splits = load(write(tmp_path / "mine", ITEMS, sessions)).splits
    again = load(write(tmp_path / "mine", ITEMS, sessions[::-1])).splits
    assert [len(part) for part in splits.values()] == [14, 2, 4]
    assert {part: {s.id for s in splits[part]} for part in splits} == {
        part: {s.id for s in again[part]} for part in again
    }


def test_the_example_of_the_docstring_loads(tmp_path):
    examples = [line.strip() for line in jsonl.__doc__.splitlines() if line.startswith("    {")]
    domain = load(write(tmp_path / "mine", examples[:-1], examples[-1:]))
    (session,) = domain.splits["train"]
    assert session.bundles == ((0, 1),) and len(session) == 3


characters = st.characters(exclude_categories=["C", "Z"])
names = st.text(characters, min_size=1, max_size=6).filter(lambda text: not is_missing(text))
# Brackets, quotes and separators in a category name are tested in test_categories.py.
category_names = st.text(st.characters(categories=["L", "N", "M"]), min_size=1, max_size=6).filter(
    lambda text: not is_missing(text)
)


@st.composite
def domains(draw):
    ids = draw(st.lists(names, min_size=2, max_size=14, unique=True))
    categories = st.lists(st.lists(category_names, min_size=1, max_size=3), max_size=2)
    items = [{"id": id, "title": draw(names), "categories": draw(categories)} for id in ids]
    sessions = []
    for id in draw(st.lists(names, min_size=1, max_size=4, unique=True)):
        inside = draw(st.lists(st.sampled_from(ids), min_size=2, unique=True))
        bundle = draw(st.lists(st.sampled_from(inside), min_size=2, unique=True))
        split = draw(st.sampled_from(["train", "validation", "test"]))
        sessions.append({"id": id, "items": inside, "bundles": [bundle], "intents": [draw(names)], "split": split})
    return items, sessions


@settings(max_examples=50, deadline=None)
@given(domains())
def test_round_trip(rows):
    items, sessions = rows
    by_id = {item["id"]: item for item in items}
    with tempfile.TemporaryDirectory() as folder:
        domain = load(write(Path(folder) / "mine", items, sessions))
    read = {(part, s.id): s for part, kept in domain.splits.items() for s in kept}
    assert len(read) == len(sessions)
    for row in sessions:
        s = read[row["split"], row["id"]]
        assert list(s.items) == row["items"] and list(s.intents) == row["intents"]
        assert [{s.items[position] for position in bundle} for bundle in s.bundles] == [set(b) for b in row["bundles"]]
        assert list(s.titles) == [by_id[item]["title"] for item in row["items"]]
        assert [[list(path) for path in paths] for paths in s.categories] == [
            by_id[i]["categories"] for i in row["items"]
        ]


S1 = SESSIONS[0]
# (file, row that takes the place of its first row, the field that the error names, a part of its reason)
FAULTS = [
    ("items.jsonl", {"id": "g"}, "title", "is missing"),
    ("items.jsonl", {"id": "g", "title": " "}, "title", "is empty"),
    ("items.jsonl", {"id": 7, "title": "A"}, "id", "7 is not a text; write it in quotes"),
    ("items.jsonl", {"id": "g", "title": "A", "category": []}, "category", "did you mean 'categories'?"),
    ("items.jsonl", {"id": "g", "title": "A", "price": 3}, "price", "valid are id, title, categories"),
    ("items.jsonl", {"id": "g", "title": "A", "categories": ["Kitchen"]}, "categories", '"Kitchen" is not a list'),
    ("items.jsonl", {"id": "g", "title": "A", "categories": [[""]]}, "categories", "is empty"),
    ("items.jsonl", {"id": "g", "title": "A", "categories": None}, "categories", "null is not a list"),
    ("items.jsonl", {"id": "g", "title": "\ud800"}, "title", "surrogate"),
    ("sessions.jsonl", {"id": "s1"}, "items", "is missing"),
    ("sessions.jsonl", {**S1, "items": "g"}, "items", '"g" is not a list'),
    ("sessions.jsonl", {**S1, "items": ["t", "g", "b", "q"]}, "items", "the item 'q', which is not among the products"),
    ("sessions.jsonl", {**S1, "items": ["t"]}, "items", "a session has 1 items"),
    ("sessions.jsonl", {**S1, "items": ["t", "g", "b", "t"]}, "items", "names the item 't' more than once"),
    ("sessions.jsonl", {**S1, "bundles": [["g", "q"]]}, "bundles", "the item 'q', which is not in the session"),
    ("sessions.jsonl", {**S1, "bundles": [["g"]]}, "bundles", "a bundle has 1 items"),
    ("sessions.jsonl", {**S1, "bundles": [["g", "g"]]}, "bundles", "names the item 'g' more than once"),
    ("sessions.jsonl", {**S1, "bundles": [[1, 2]]}, "bundles", "1 is not a text"),
    ("sessions.jsonl", {**S1, "intents": []}, "intents", "has 0 entries for 1 bundles"),
    ("sessions.jsonl", {**S1, "split": "dev"}, "split", "'dev'; valid are train, validation, test"),
    ("sessions.jsonl", {**S1, "bundels": []}, "bundels", "did you mean 'bundles'?"),
    ("sessions.jsonl", {"id": "s1", "items": ["g", "t"]}, "split", "is missing, but other sessions have it"),
]


@pytest.mark.parametrize("file, row, field, reason", FAULTS)
def test_a_fault_names_file_line_and_field(tmp_path, file, row, field, reason):
    # a blank line first: lines are counted as they stand in the file
    items = ["", row, *ITEMS[1:]] if file == "items.jsonl" else ITEMS
    sessions = ["", row, *SESSIONS[1:]] if file == "sessions.jsonl" else SESSIONS
    with pytest.raises(InputError) as error:
        load(write(tmp_path / "mine", items, sessions))
    assert f"{file}, line 2, field '{field}': " in str(error.value) and reason in str(error.value)


@pytest.mark.parametrize("file, rows", [("items.jsonl", ITEMS), ("sessions.jsonl", SESSIONS)])
def test_faults_of_the_file(tmp_path, file, rows):
    path = write(tmp_path / "mine", ITEMS, SESSIONS) / file

    def expect(data: bytes, message: str) -> None:
        path.write_bytes(data)
        with pytest.raises(InputError, match=message):
            load(path.parent)

    good = json.dumps(rows[0]).encode()
    expect(good + b"\n" + good, f"{file}, line 2, field 'id': '{rows[0]['id']}' is a duplicate of line 1")
    expect(good + b'\n{"id": ', rf"{file}, line 2: this is not JSON \(.* column \d+\)")
    expect(
        good + b'\n{"id": "x", "id": "y"}', f"{file}, line 2: this row cannot be read .the field 'id' is there twice"
    )
    expect(good + b'\n{"id": ' + b"9" * 5000 + b"}", f"{file}, line 2: this row cannot be read .Exceeds the limit")
    expect(
        good + b'\n{"id": ' + b"[" * 9999 + b"]" * 9999 + b"}", f"{file}, line 2: this row cannot be read .maximum rec"
    )
    expect(good + b"\n[1]", f"{file}, line 2: a row must be a JSON object")
    expect(good + b"\n\xff", f"{file}, row 2: the file is not UTF-8")
    expect(b"\n\n", f"{file}: the file has no rows")
    path.unlink()
    with pytest.raises(InputError, match=f"{file}: the file is missing"):
        load(path.parent)


def test_a_domain_without_any_bundle(tmp_path):
    with pytest.raises(InputError, match=r"sessions.jsonl: no session has a bundle"):
        load(write(tmp_path / "mine", ITEMS, [{"id": "s", "items": ["g", "t"]}]))


def test_a_session_annotated_without_a_bundle_is_kept_beside_the_splits(tmp_path):
    """One that does not say is left out alone."""
    rows = [
        {"id": "s", "items": ["g", "t"], "bundles": [["g", "t"]]},
        {"id": "n0", "items": ["g", "t"], "bundles": []},
        {"id": "unknown", "items": ["t", "g"]},
    ]
    domain = load(write(tmp_path / "mine", ITEMS, rows))
    assert [session.id for session in domain.without_bundles] == ["n0"]
    assert [session.id for split in domain.splits.values() for session in split] == ["s"]
    assert domain.left_out["sessions without a bundle"] == 2
