"""The public files: real counts, a small domain by hand, and every way in which a file can be wrong."""

import pytest

from kdjax.data import leaf_category, load_domain
from kdjax.errors import InputError

FILES = {
    "session_item.csv": "session ID,item ID\n9,c\n7,a\n7,b\n9,d\n9,e\n8,z\n8,y\n7,c\n",
    "session_bundle.csv": "session ID,bundle ID\n9,0\n9,1\n7,2\n9,3\n9,4\n",
    "bundle_item.csv": "bundle ID,item ID\n0,e\n0,c\n1,c\n1,d\n1,e\n2,a\n2,b\n3,c\n3,e\n4,d\n4,e\n",
    "bundle_intent.csv": 'bundle ID,intent\n0,first\n1,too  much\n2,"two\nlines"\n3,again\n8,of no session\n',
    "item_titles.csv": 'item ID,titles\na,Alpha\nb,"Beta,  ""big""\nblue"\nc,Gamma\nd,Delta\ne,Epsilon\n',
    "item_categories.csv": 'item ID,categories\na,"[[X, Y & Z,W]]"\nb,[[]]\nc,"[[X],[X,V]]"\nd,[[X]]\ne,[[X]]\n',
}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "toys"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def load(folder):
    return load_domain("bundlerec", str(folder.parent), folder.name)


def test_a_small_domain_by_hand(folder):
    domain = load(folder)
    assert domain.name == "toys" and domain.source == "bundlerec" and not domain.synthetic
    assert domain.splits["train"] == domain.splits["validation"] == []
    nine, seven = domain.splits["test"]  # session 9 comes first in session_bundle.csv; session 8 has no bundle
    assert (nine.id, nine.items, nine.titles) == ("9", ("c", "d", "e"), ("Gamma", "Delta", "Epsilon"))
    # bundle 1 contains 0 and 4, bundle 3 is bundle 0 again; bundle 4 has no intent
    assert nine.bundles == ((0, 2), (1, 2)) and nine.intents == ("first", "")
    assert seven.bundles == ((0, 1),) and seven.intents == ("two lines",)
    assert seven.titles == ("Alpha", 'Beta, "big" blue', "Gamma")
    assert seven.categories == ((("X, Y & Z", "W"),), (), (("X",), ("X", "V")))
    assert domain.left_out == {
        "sessions without a bundle": 1,
        "intents of bundles that no session has": 1,
        "exact duplicate bundles": 1,
        "bundles that contain another of their session": 1,
    }


def test_line_ends_and_a_byte_order_mark_change_nothing(folder):
    digest = load(folder).digest
    for name, text in FILES.items():
        (folder / name).write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode() + b"\r\n")
    assert load(folder).digest == digest


def test_the_digest_sees_a_change(folder):
    digest = load(folder).digest
    (folder / "item_titles.csv").write_text(FILES["item_titles.csv"].replace("Gamma", "Gamme"))
    assert load(folder).digest != digest


# (file, what is replaced, by what, the file and row that the error names, a part of its reason)
FAULTS = [
    ("session_item.csv", "item ID", "item", "session_item.csv, row 1", "no column 'item ID'"),
    ("session_item.csv", "9,d\n", "9,d,x\n", "session_item.csv, row 5", "3 columns where the header has 2"),
    ("session_item.csv", "9,d\n", "9\n", "session_item.csv, row 5", "1 columns where the header has 2"),
    ("session_item.csv", "9,d\n", "9,\n", "session_item.csv, row 5", "'item ID' is empty"),
    ("session_item.csv", "9,d\n", " ,d\n", "session_item.csv, row 5", "'session ID' is empty"),
    ("session_item.csv", "9,d\n", "9,d\n9,c\n", "session_item.csv, row 6", "duplicate of row 2"),
    ("session_item.csv", "9,d\n", "9,d\n9,q\n", "session_item.csv, row 6", "item q has no row in item_titles.csv"),
    ("session_bundle.csv", "7,2\n", "6,2\n", "session_bundle.csv, row 4", "session 6 has no products"),
    ("session_bundle.csv", "9,3\n", "7,0\n", "session_bundle.csv, row 5", "bundle 0 is a duplicate"),
    ("session_bundle.csv", "9,3\n", "9,3\n9,5\n", "session_bundle.csv, row 6", "bundle 5 has no items"),
    ("session_bundle.csv", "9,3\n", "", "bundle_item.csv, row 9", "bundle 3 belongs to no session"),
    ("bundle_item.csv", "2,b\n", "2,d\n", "bundle_item.csv, row 8", "item d of bundle 2 is not in its session 7"),
    ("bundle_item.csv", "2,b\n", "2,q\n", "bundle_item.csv, row 8", "item q of bundle 2 is not in its session 7"),
    ("bundle_item.csv", "2,b\n", "", "bundle_item.csv, row 7", "bundle 2 has one item"),
    ("bundle_item.csv", "2,b\n", "2,b\n2,a\n", "bundle_item.csv, row 9", "duplicate of row 7"),
    ("bundle_intent.csv", "3,again", "2,again", "bundle_intent.csv, row 6", "bundle ID 2 is a duplicate of row 4"),
    ("item_titles.csv", "c,Gamma", "c, ", "item_titles.csv, row 5", "item c has an empty title"),
    ("item_titles.csv", "d,Delta", "c,Delta", "item_titles.csv, row 6", "item ID c is a duplicate of row 5"),
    ("item_titles.csv", "d,Delta\n", "", "session_item.csv, row 5", "item d has no row in item_titles.csv"),
    ("item_titles.csv", "d,Delta", 'd,"Delta', "item_titles.csv, row 6", "the row is broken"),
    ("item_titles.csv", "d,Delta", 'd,"Del"ta', "item_titles.csv, row 6", "the row is broken"),
    ("item_categories.csv", "d,[[X]]\n", "", "session_item.csv, row 5", "item d has no row in item_categories.csv"),
    ("item_categories.csv", "d,[[X]]", "d,[X]", "item_categories.csv, row 5", "not of the form"),
    ("item_categories.csv", "d,[[X]]", "d,[[X[Y]]", "item_categories.csv, row 5", "bracket"),
]


@pytest.mark.parametrize("file, old, new, where, reason", FAULTS)
def test_a_fault_names_file_and_row(folder, file, old, new, where, reason):
    assert FILES[file].count(old) == 1
    (folder / file).write_text(FILES[file].replace(old, new))
    with pytest.raises(InputError) as error:
        load(folder)
    assert f"{where}: " in str(error.value) and reason in str(error.value)


@pytest.mark.parametrize("file", FILES)
def test_a_missing_or_empty_file_is_named(folder, file):
    (folder / file).write_text("")
    with pytest.raises(InputError, match=rf"{file}: the file is empty"):
        load(folder)
    (folder / file).unlink()
    with pytest.raises(InputError, match=rf"{file}: the file is missing"):
        load(folder)


def test_a_file_that_is_not_utf8(folder):
    (folder / "item_titles.csv").write_bytes(FILES["item_titles.csv"].replace("Gamma", "Gammä").encode("latin-1"))
    with pytest.raises(InputError, match=r"item_titles.csv, row 5: the file is not UTF-8"):
        load(folder)


def test_a_domain_without_any_bundle(folder):
    (folder / "session_bundle.csv").write_text("session ID,bundle ID\n")
    (folder / "bundle_item.csv").write_text("bundle ID,item ID\n")
    with pytest.raises(InputError, match=r"session_bundle.csv: no session has a bundle"):
        load(folder)


def test_a_missing_domain_names_what_is_there(folder):
    with pytest.raises(InputError, match=r"no folder 'tools' in .*; it holds toys$"):
        load_domain("bundlerec", str(folder.parent), "tools")
    with pytest.raises(InputError, match=r"nowhere does not exist"):
        load_domain("bundlerec", str(folder.parent / "nowhere"), "toys")
    with pytest.raises(InputError, match=r"no root is given"):
        load_domain("bundlerec", "", "toys")


@pytest.mark.parametrize(
    "name, sessions, bundles, left_out",
    [
        ("electronic", (623, 90, 180), (949, 139, 258), (1145 - 893, 19, 1750 - 19 - 1346)),
        ("clothing", (698, 90, 180), (1078, 137, 273), (1181 - 968, 61, 1910 - 61 - 1488)),
    ],
)
def test_the_official_counts(bundlerec, name, sessions, bundles, left_out):
    domain = load_domain("bundlerec", str(bundlerec), name)
    assert tuple(len(part) for part in domain.splits.values()) == sessions
    assert tuple(sum(len(s.bundles) for s in part) for part in domain.splits.values()) == bundles
    assert tuple(filter(None, domain.left_out.values())) == left_out
    for part, per_length in (("validation", 10), ("test", 20)):
        assert [len(s) for s in domain.splits[part]] == [n for n in range(2, 11) for _ in range(per_length)]
    seen = [s for part in domain.splits.values() for s in part]
    assert len({s.id for s in seen}) == len(seen)
    for s in seen:
        assert len(s.items) == len(s.titles) == len(s.categories) and len(s.bundles) == len(s.intents) > 0
        assert all(title and title == " ".join(title.split()) for title in s.titles)
        assert all(leaf_category(paths) for paths in s.categories)
        assert all(list(b) == sorted(set(b)) and len(b) >= 2 and b[-1] < len(s) for b in s.bundles)
