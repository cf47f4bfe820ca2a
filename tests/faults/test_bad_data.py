"""Data files that are damaged, of another kind or hostile: the error names the file, the row and the field.

What a single row can have wrong is in tests/data.
"""

from listed import each

from kdjax.data import load_domain

CSV = {
    "session_item.csv": "session ID,item ID\n1,a\n1,b\n1,c\n2,a\n2,c\n",
    "session_bundle.csv": "session ID,bundle ID\n1,10\n2,20\n",
    "bundle_item.csv": "bundle ID,item ID\n10,a\n10,b\n20,a\n20,c\n",
    "bundle_intent.csv": "bundle ID,intent\n10,tea\n20,walk\n",
    "item_titles.csv": "item ID,titles\na,Kettle\nb,Cups\nc,Boots\n",
    "item_categories.csv": "item ID,categories\na,[[Home]]\nb,[[Home]]\nc,[[Shoes]]\n",
    "user_session.csv": "user ID,session ID\nu,1\nv,2\n",
}
JSONL = {
    "items.jsonl": '{"id": "a", "title": "Kettle"}\n{"id": "b", "title": "Cups"}\n{"id": "c", "title": "Boots"}\n',
    "sessions.jsonl": '{"id": "1", "items": ["a", "b"], "bundles": [["a", "b"]]}\n{"id": "2", "items": ["a", "c"]}\n',
}


def swap(old, new):
    """The change that puts `new` where `old` is."""
    return lambda data: data.replace(old, new)


def add(more):
    return lambda data: data + more


def only(content):
    return lambda data: content


def encoded(encoding):
    return lambda data: data.decode().encode(encoding)


DIRECTORY, LOOP = object(), object()  # what may stand in a file's place
TITLES, SESSION_ITEM, BUNDLE_ITEM = "item_titles.csv", "session_item.csv", "bundle_item.csv"
CATEGORIES = "item_categories.csv"

# what is wrong: (file, what is done to its bytes, what the error says behind the file's name, and besides)
BAD_CSV = {
    "only its header": (BUNDLE_ITEM, only(b"bundle ID,item ID\n"), "", "row 2: the bundle 10 has no items in"),
    "nothing at all": (BUNDLE_ITEM, only(b""), ": the file is empty; its header should be bundle ID,item ID"),
    "cut off in a row": (SESSION_ITEM, lambda data: data[:-3], ", row 6: 1 columns where the header has 2"),
    "semicolons": (SESSION_ITEM, swap(b",", b";"), ", row 1: there is no column 'session ID'"),
    "a header in capitals": (TITLES, swap(b"item ID", b"Item ID"), ", row 1: there is no", "Rename it 'item ID'"),
    "a header with an underscore": (TITLES, swap(b"item ID", b"item_id"), ", row 1", "did you mean 'item_id'?"),
    "a header in the singular": (TITLES, swap(b"titles", b"title"), ", row 1: there is no column 'titles'", "'title'?"),
    "tabs": (TITLES, swap(b",", b"\t"), ", row 1: there is no column 'item ID'"),
    "Latin-1": (TITLES, swap(b"Cups", b"Caf\xe9"), ", row 3: the file is not UTF-8", "convert it"),
    "UTF-16": (TITLES, encoded("utf-16"), ", row 1: a zero byte", "convert it to UTF-8"),
    "UTF-16 without a mark": (TITLES, encoded("utf-16-le"), ", row 1: a zero byte", "convert it to UTF-8"),
    "a zero byte in an id": (SESSION_ITEM, swap(b"1,b", b"1,b\0"), ", row 3: a zero byte"),
    "zeros of a full disk": ("bundle_intent.csv", add(bytes(512)), ", row 4: a zero byte"),
    "compressed": (TITLES, only(b"\x1f\x8b\x08\x08\xa7"), ", row 1: the file is not UTF-8"),
    "a web page": (TITLES, only(b"<!DOCTYPE html>\n<title>404</title>\n"), ", row 1: there is no column 'item ID'"),
    "a field of a megabyte": (TITLES, add(b"d," + b"x" * 10**6), ", row 5: the row is broken", "field limit"),
    "a quote that never ends": (TITLES, swap(b"Cups", b'"Cups'), ", row 3: the row is broken", "unbalanced quote"),
    "a column twice": (BUNDLE_ITEM, swap(b"bundle ID", b"item ID,bundle ID"), ", row 1", "'item ID' is there more"),
    "an item twice": (TITLES, add(b"a,Pot\n"), ", row 5: the item ID a is a duplicate of row 2"),
    "an absent product in a bundle": (BUNDLE_ITEM, swap(b"10,b", b"10,z"), ", row 3: the item z of bundle 10 is"),
    "an absent product in a session": (SESSION_ITEM, swap(b"1,c", b"1,z"), ", row 4: the item z has no row in"),
    "a session of two users": ("user_session.csv", add(b"v,1\n"), ", row 4: the session 1 is a duplicate: user u"),
    "the header twice": (TITLES, swap(b"item ID,titles\n", b"item ID,titles\n" * 2), ", row 2: the header comes again"),
    "the header in the middle": (SESSION_ITEM, swap(b"1,c", b"1,c\nsession id,item id"), ", row 5: the header comes"),
    "two files joined": (TITLES, swap(b"b,Cups", b"\xef\xbb\xbfb,Cups"), ", row 3: a byte order mark inside the file"),
    "semicolons, told what to do": (TITLES, swap(b",", b";"), ", row 1", "should be item ID,titles, with commas"),
    "columns exchanged": (TITLES, swap(b"item ID,titles", b"titles,item ID"), "", "the item a has no row in item_"),
    "numbers with a point": (BUNDLE_ITEM, swap(b"10,", b"10.0,"), "", "has no items", "'10.0' is there"),
    "numbers with a point in a session": ("session_bundle.csv", swap(b"1,", b"1.0,"), ", row 2", "'1' is there"),
    "quoted twice": (
        BUNDLE_ITEM,
        swap(b"10,a", b"10,'a'"),
        ", row 2: the item 'a' of bundle 10 is not",
        "'a' is there",
    ),
    "leading zeros": ("session_bundle.csv", swap(b"2,20", b"02,20"), ", row 3: the session 02 has", "'2' is there"),
    "positions for items": (BUNDLE_ITEM, swap(b"10,a\n10,b", b"10,0\n10,1"), ", row 2: the item 0 of bundle 10 is not"),
    "intents of other bundles": ("bundle_intent.csv", swap(b"0,", b"0.0,"), ", row 2: no bundle of", "'10' is there"),
    "a missing intent": ("bundle_intent.csv", swap(b"tea", b"nan"), ", row 2: the intent of bundle 10 is 'nan'"),
    "a missing title": (TITLES, swap(b"Cups", b"nan"), ", row 3: the title of item b is 'nan', a missing value"),
    "a missing id": (SESSION_ITEM, swap(b"1,b", b"nan,b"), ", row 3: the column 'session ID' is 'nan'"),
    "a missing item": (BUNDLE_ITEM, swap(b"10,b", b"10,<NA>"), ", row 3: the column 'item ID' is '<NA>'"),
    "users and sessions exchanged": (
        "user_session.csv",
        only(b"user ID,session ID\n1,u\n2,v\n"),
        ", row 2: no session of this file is in session_item.csv; the first is u",
    ),
    "categories of NumPy": (CATEGORIES, swap(b"[[Home]]", b"[['Home' 'Tea']]"), ", row 2: item a", "with quotes [["),
    "quotes around some names": (
        CATEGORIES,
        swap(b"[[Shoes]]", b"\"[['Shoes',Men]]\""),
        ", row 4: item c: the category",
    ),
    "a missing category": (CATEGORIES, swap(b"[[Shoes]]", b"[[nan]]"), ", row 4: item c", "[[]] for no category"),
    "a missing title in small letters": (
        TITLES,
        swap(b"Cups", b"n/a"),
        ", row 3: the title of item b is 'n/a', a missing",
    ),
    "a title undefined": (TITLES, swap(b"Cups", b"undefined"), ", row 3: the title of item b is 'undefined'"),
    "categories of Python 2": (
        CATEGORIES,
        swap(b"[[Shoes]]", b"[[u'Shoes']]"),
        ", row 4: item c: the category",
        "quotes",
    ),
    "typographic quotes": (
        CATEGORIES,
        swap(b"[[Shoes]]", "[[“Shoes”]]".encode()),
        ", row 4: item c: the category name '“Shoes”' has quotes around it",
    ),
    "tuples of names": (CATEGORIES, swap(b"[[Shoes]]", b"[[(Shoes)]]"), ", row 4: item c: the category name '(Shoes)'"),
    "paths in one text": (
        CATEGORIES,
        lambda data: data.replace(b"[[", b"[[Shop > "),
        ": every name of this column is a path in one text, as 'Shop > Home'",
        "write [[A,B,C],[A,D]]",
    ),
    "no categories": (CATEGORIES, swap(b"[[Shoes]]", b""), ", row 4: item c", "[[]] for no category"),
    "names separated by comma and space": (
        CATEGORIES,
        swap(b"[[Shoes]]", b'"[[Shoes, Boots]]"'),
        ", row 4: every comma of this column has a space after it",
        "write [[A,B]] for two names",
    ),
    "a folder in its place": (TITLES, DIRECTORY, ": the file cannot be read (Is a directory)"),
    "a link to itself": (TITLES, LOOP, ": the file cannot be read"),
}
ITEMS, SESSIONS = "items.jsonl", "sessions.jsonl"
BUNDLES = b'[["a", "b"]]'
BAD_JSONL = {
    "nothing at all": (ITEMS, only(b""), ": the file has no rows; a row is a JSON object with id, title"),
    "one array": (SESSIONS, only(b'[{"id": "1", "items": ["a", "b"]}]'), ", line 1: a row must be a JSON object"),
    "one array over many lines": (
        ITEMS,
        lambda data: b"[" + data + b"]",
        ", line 1: this is not JSON",
        "one object a line",
    ),
    "commas between lines": (ITEMS, swap(b"}", b"},"), ", line 1: this is not JSON", "or commas between them"),
    "a header as a row": (
        ITEMS,
        lambda data: b'{"id": "id", "title": "title"}\n' + data,
        ", line 1: every field holds its own name",
    ),
    "a missing title": (ITEMS, swap(b"Cups", b"nan"), ", line 2, field 'title': is 'nan', which stands for a missing"),
    "a missing id": (SESSIONS, swap(b'"2"', b'"None"'), ", line 2, field 'id': is 'None', which stands for a missing"),
    "positions in text": (
        SESSIONS,
        swap(BUNDLES, b'[["0", "1"]]'),
        ", line 1, field 'bundles'",
        "'0', which is not in",
    ),
    "letters of another case": (
        SESSIONS,
        swap(b'["a", "c"]', b'["A", "c"]'),
        ", line 2, field 'items'",
        "'a' is there",
    ),
    "items in one text": (SESSIONS, swap(b'["a", "c"]', b'"a,c"'), ", line 2, field 'items'", 'as in ["a", "b"]'),
    "a path for paths": (
        ITEMS,
        swap(b'"Cups"', b'"Cups", "categories": ["Home"]'),
        ", line 2",
        'as in [["Home", "Mugs"]]',
    ),
    "quotes in a name": (
        ITEMS,
        swap(b'"Cups"', b'"Cups", "categories": [["\'Home\'"]]'),
        ", line 2, field 'categories': the category name \"'Home'\" has quotes around it",
    ),
    "a list in a name": (
        ITEMS,
        swap(b'"Cups"', b'"Cups", "categories": [["[\'Home\', \'Mugs\']"]]'),
        ", line 2, field 'categories'",
        "has a bracket around it",
    ),
    "a path in one text": (
        ITEMS,
        swap(b'"Cups"', b'"Cups", "categories": [["Home|Mugs"]]'),
        ", field 'categories': every name of this column is a path in one text, as 'Home|Mugs'",
    ),
    "two files joined": (ITEMS, swap(b'{"id": "b"', b'\xef\xbb\xbf{"id": "b"'), ", row 2: a byte order mark inside"),
    "an object over many lines": (SESSIONS, swap(b", ", b",\n"), ", line 1: this is not JSON"),
    "two objects in a line": (SESSIONS, swap(b"\n", b""), ", line 1: this is not JSON (Extra data"),
    "cut off": (ITEMS, lambda data: data[:-9], ", line 3: this is not JSON"),
    "CSV": (ITEMS, only(b"id,title\na,Kettle\n"), ", line 1: this is not JSON"),
    "Python": (ITEMS, swap(b'"', b"'"), ", line 1: this is not JSON"),
    "Latin-1": (ITEMS, swap(b"Cups", b"Caf\xe9"), ", row 2: the file is not UTF-8"),
    "UTF-16": (ITEMS, encoded("utf-16"), ", row 1: a zero byte"),
    "NaN for an id": (SESSIONS, swap(b'"1"', b"NaN"), ", line 1, field 'id': NaN is not a text"),
    "Infinity for a title": (ITEMS, swap(b'"Cups"', b"Infinity"), ", line 2, field 'title': Infinity is not a text"),
    "true for an id": (ITEMS, swap(b'"a"', b"true"), ", line 1, field 'id': true is not a text"),
    "an object for a list": (SESSIONS, swap(b'["a", "c"]', b'{"a": 1}'), ", line 2, field 'items'", "is not a list"),
    "numbers for ids": (
        SESSIONS,
        swap(BUNDLES, b"[[0, 1]]"),
        ", line 1, field 'bundles': 0 is not a text",
        "not by their places",
    ),
    "no item of the session": (SESSIONS, swap(BUNDLES, b'[["a", "c"]]'), ", line 1, field 'bundles'", "'c', which"),
    "a bundle not in a list": (SESSIONS, swap(BUNDLES, b'["a", "b"]'), ", line 1, field 'bundles'", "is not a list"),
    "a session twice": (SESSIONS, lambda data: data * 2, ", line 3, field 'id': '1' is a duplicate of line 1"),
    "a field twice": (ITEMS, swap(b'"title"', b'"id": "a", "title"'), ", line 1", "the field 'id' is there twice"),
    "100 000 lists in lists": (ITEMS, add(b"[" * 10**5 + b"]" * 10**5), ", line 4: this row cannot be read"),
    "100 000 objects in objects": (ITEMS, add(b'{"a":' * 10**5), ", line 4: this row cannot be read"),
    "a number of 10 000 digits": (ITEMS, add(b'{"id":' + b"9" * 10**4 + b"}"), ", line 4: this row cannot be read"),
    "half a character": (ITEMS, swap(b"Cups", rb"\ud83d"), ", line 2, field 'title'", "surrogate"),
    "an absent item": (SESSIONS, swap(b'"c"', b'"z"'), ", line 2, field 'items'", "'z', which is not among"),
    "no bundle": (SESSIONS, swap(BUNDLES, b"[]"), ": no session has a bundle; give 'bundles'"),
    "a folder in its place": (ITEMS, DIRECTORY, ": the file cannot be read (Is a directory)"),
}


def spoil(path, change) -> None:
    if change in (DIRECTORY, LOOP):
        path.unlink()
        path.mkdir() if change is DIRECTORY else path.symlink_to(path)
    else:
        data = path.read_bytes()
        assert change(data) != data
        path.write_bytes(change(data))


def is_refused(source, files, name, change, words, tmp_path, refused):
    folder = tmp_path / "shop"
    folder.mkdir()
    for file, text in files.items():
        (folder / file).write_text(text)
    load_domain(source, str(tmp_path), "shop")  # it is whole
    spoil(folder / name, change)
    refused(lambda: load_domain(source, str(tmp_path), "shop"), name + words[0], *words[1:])


@each("name, change", BAD_CSV)
def test_a_file_of_bundlerec(name, change, words, tmp_path, refused):
    is_refused("bundlerec", CSV, name, change, words, tmp_path, refused)


@each("name, change", BAD_JSONL)
def test_a_file_of_json_lines(name, change, words, tmp_path, refused):
    is_refused("jsonl", JSONL, name, change, words, tmp_path, refused)
