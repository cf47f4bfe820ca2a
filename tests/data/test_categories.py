import csv
import json
import time

import pytest

from kdjax.data.categories import joined_names, parse_categories, separated_by_spaces
from kdjax.data.sessions import leaf_category


@pytest.mark.parametrize(
    "text, paths",
    [
        ("[[]]", ()),
        ("[[A,B,C],[A,D]]", (("A", "B", "C"), ("A", "D"))),
        ("[[Clothing, Shoes & Jewelry,Men]]", (("Clothing, Shoes & Jewelry", "Men"),)),
        (" [[Coffee, Tea & Cocoa]] ", (("Coffee, Tea & Cocoa",),)),
        ("[[A,,B],[]]", (("A", "B"),)),
        # As json.dumps and Python write it.
        ('[["Home", "Mugs & Cups"], ["Gifts"]]', (("Home", "Mugs & Cups"), ("Gifts",))),
        ("[['Home', 'Mugs & Cups'], ['Gifts']]", (("Home", "Mugs & Cups"), ("Gifts",))),
        ('[["Home","Mugs"],["Gifts"]]', (("Home", "Mugs"), ("Gifts",))),
        ("""[["Women's Shoes", 'Boots']]""", (("Women's Shoes", "Boots"),)),
        (r"""[['Women\'s "best"', 'Caf\xe9']]""", (('Women\'s "best"', "Café"),)),
        (r'[["Caf\u00e9", "19\" racks", "a\/b", "\ud83d\ude00"]]', (("Café", '19" racks', "a/b", "😀"),)),
        ('[["Clothing, Shoes & Jewelry", "a],[b"]]', (("Clothing, Shoes & Jewelry", "a],[b"),)),
        ('[ [ "A" , "B" , ] , [ ] , ["", " C\\nD "] ]', (("A", "B"), ("C D",))),
        ("[[ ]]", ()),
        # Without quotes an apostrophe or an inch is part of a name, as it always was.
        ("[[Men's Shoes,Levi's],[Kids' Backpacks]]", (("Men's Shoes", "Levi's"), ("Kids' Backpacks",))),
        ('[[Monitors,24" Monitors,27"]]', (("Monitors", '24" Monitors', '27"'),)),
        ("[[Music,80s Music,'90s],['n Roll]]", (("Music", "80s Music", "'90s"), ("'n Roll",))),
        ('[["19 inch" racks,A],[19" racks]]', (('"19 inch" racks', "A"), ('19" racks',))),
        ("[[Home (Kitchen),Cups <1l>]]", (("Home (Kitchen)", "Cups <1l>"),)),
    ],
)
def test_parse(text, paths):
    assert parse_categories(text) == paths


@pytest.mark.parametrize("text", ["", "[]", "[A,B]", "[[A,B]", "[[A,[B]]", "[[A]],[[B]]", "[[A], [B]]", "[[]"])
def test_what_is_not_a_list_of_paths_is_refused(text):
    with pytest.raises(ValueError, match="categor"):
        parse_categories(text)


@pytest.mark.parametrize(
    "text, reason",
    [
        ("[['A' 'B']]", "quotes around some"),  # NumPy's; Python would join the two names
        ("[['A', B]]", "quotes around some"),
        ("[[A,'B']]", "quotes around some"),
        ("[[A, 'B']]", "quotes around some"),
        ("[['A','B]]", "quotes around some"),
        (r"[[\"A\",\"B\"]]", "quotes around some"),
        ("[['A', None]]", "quotes around some"),
        ("[['A', ['B']]]", "bracket inside"),
        (r"[['\x']]", "neither JSON nor Python"),
        (r'[["\ud83d"]]', "surrogates not allowed"),
        ("[['A, B', None]]", "quotes around some"),
        ("[['A,B', C]]", "quotes around some"),
        ("[[u'A']]", "quotes around some"),
        ("[[u'A', u'B']]", "quotes around some"),
        ("[[b'A',b'B']]", "quotes around some"),
        ("[[“A”]]", "'“A”' has quotes around it"),
        ("[[„A“,B]]", "has quotes around it"),
        ("[[‘A’]]", "has quotes around it"),
        ("[[«A»]]", "has quotes around it"),
        ("[[`A`]]", "has quotes around it"),
        ("[[&quot;A&quot;]]", "has quotes around it"),
        ("[[&#39;A&#39;]]", "has quotes around it"),
        ("""[["'A'"]]""", "has quotes around it"),
        ("""[["u'A'"]]""", "has quotes around it"),
        ("""[["['A', 'B']"]]""", "has a bracket around it"),
        ('[["[A", "B]"]]', r"'\[A' has a bracket"),
        ('[["A", "B]"]]', "'B]' has a bracket"),
        ("[[(A,B)]]", r"'\(A' has a bracket"),
        ("[[{A}]]", "'{A}' has a bracket"),
        ("[[A,B)]]", r"'B\)' has a bracket"),
        ("[[none]]", "'none' stands for a missing value"),
        ("[[A,Null]]", "'Null' stands for a missing value"),
        ("[[n/a]]", "'n/a' stands for a missing value"),
        ("[[NaT]]", "'NaT' stands for a missing value"),
        ("[[undefined]]", "'undefined' stands for a missing value"),
        ("[[nan]]", "'nan' stands for a missing value"),
        ("[['A', 'None']]", "'None' stands for a missing value"),
        ("[list(['A', 'B'])]", "not of the form"),
    ],
)
def test_near_forms_are_refused(text, reason):
    with pytest.raises(ValueError, match=reason):
        parse_categories(text)


def test_a_long_text_that_does_not_fit_fails_at_once():
    for filling in (" " * 10**5, "'a'," * 10**5, "\\" * 10**5, "[" * 10**5):
        started = time.perf_counter()
        with pytest.raises(ValueError):
            parse_categories(f"[['{filling}")
        assert time.perf_counter() - started < 2


def test_a_column_whose_names_are_separated_by_a_comma_and_a_space():
    assert separated_by_spaces(["[[Toys]]", "[[Home, Mugs]]"]) == "[[Home, Mugs]]"
    assert separated_by_spaces(["[[Home, Mugs]]", "[[Coffee, Tea & Cocoa,Beans]]"]) is None
    assert separated_by_spaces(["[[Home]]", "[['Home', 'Mugs']]", "[[]]"]) is None


@pytest.mark.parametrize("name", ["Home > Mugs", "Home>Mugs", "Home|Mugs", "Home；Mugs", "Home &gt; Mugs"])
def test_a_column_whose_names_are_paths_in_one_text(name):
    assert joined_names([(name,), ("A | B",)])
    assert joined_names([(name,), ("Home",)]) is None
    assert joined_names([]) is None


def test_leaf_of_the_longest_path():
    assert leaf_category(parse_categories("[[A,B],[A,C,D],[E,F,G]]")) == "D"
    assert leaf_category(()) is None


def test_every_real_row(bundlerec):
    names, roots, n_rows = set(), set(), 0
    for path in sorted(bundlerec.glob("*/item_categories.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                paths = parse_categories(row["categories"])
                # Written with quotes, the same paths are read; and nothing is lost: written back, they give the text.
                for quoted in (json.dumps(paths), str([list(path) for path in paths])):
                    assert parse_categories(quoted) == paths
                assert f"[[{'],['.join(','.join(path) for path in paths)}]]" == row["categories"]
                names.update(name for path in paths for name in path)
                roots.update(path[0] for path in paths)
                n_rows += 1
    assert n_rows == 4239 + 5681
    assert not any(character in name for name in names for character in "[]")
    assert not any(name.startswith(" ") or not name for name in names)
    assert "Clothing, Shoes & Jewelry" in roots and "Clothing" not in roots and "Shoes & Jewelry" not in names
