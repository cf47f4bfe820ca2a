import csv

import pytest

from kdjax.data.categories import parse_categories
from kdjax.data.sessions import leaf_category


@pytest.mark.parametrize(
    "text, paths",
    [
        ("[[]]", ()),
        ("[[A,B,C],[A,D]]", (("A", "B", "C"), ("A", "D"))),
        ("[[Clothing, Shoes & Jewelry,Men]]", (("Clothing, Shoes & Jewelry", "Men"),)),
        (" [[Coffee, Tea & Cocoa]] ", (("Coffee, Tea & Cocoa",),)),
        ("[[A,,B],[]]", (("A", "B"),)),
    ],
)
def test_parse(text, paths):
    assert parse_categories(text) == paths


@pytest.mark.parametrize("text", ["", "[]", "[A,B]", "[[A,B]", "[[A,[B]]", "[[A]],[[B]]", "[[A], [B]]", "[[]"])
def test_what_is_not_a_list_of_paths_is_refused(text):
    with pytest.raises(ValueError, match="categor"):
        parse_categories(text)


def test_leaf_of_the_longest_path():
    assert leaf_category(parse_categories("[[A,B],[A,C,D],[E,F,G]]")) == "D"
    assert leaf_category(()) is None


def test_every_real_row(bundlerec):
    names, roots, n_rows = set(), set(), 0
    for path in sorted(bundlerec.glob("*/item_categories.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                paths = parse_categories(row["categories"])
                # nothing is lost: written back, the paths give the text they came from
                assert f"[[{'],['.join(','.join(path) for path in paths)}]]" == row["categories"]
                names.update(name for path in paths for name in path)
                roots.update(path[0] for path in paths)
                n_rows += 1
    assert n_rows == 4239 + 5681
    assert not any(character in name for name in names for character in "[]")
    assert not any(name.startswith(" ") or not name for name in names)
    assert "Clothing, Shoes & Jewelry" in roots and "Clothing" not in roots and "Shoes & Jewelry" not in names
