"""Category names, and the category column of the BundleRec files: lists of names without quotes, or with those of JSON or Python."""

import json
import re
from ast import literal_eval
from collections.abc import Collection, Iterable
from html import unescape

from kdjax.data.files import is_missing, one_line
from kdjax.data.sessions import CategoryPath

# Possessive, so that a long text that does not fit fails in linear time.
_NAME = r"""(?:"(?:[^"\\]|\\.)*+"|'(?:[^'\\]|\\.)*+')"""
_PATH = rf"\[\s*+(?:{_NAME}\s*+(?:,\s*+{_NAME}\s*+)*+,?+\s*+)?+\]"
_QUOTED = re.compile(rf"\[\s*+{_PATH}\s*+(?:,\s*+{_PATH}\s*+)*+,?+\s*+\]", re.DOTALL)
# A quote where a name may begin, and one where a name may end: together quotes around a name, alone an apostrophe or inches.
_QUOTES = [(re.compile(rf"(?:^|,)\s*+[uUbB]?\\?{at}"), re.compile(rf"{at}\s*+(?:,|$)")) for at in "'\""]
_WRAPPED = re.compile(r"""[uUbB]?\\?(?:'.*'|".*"|`.*`|[“”„].*[“”]|[‘’‚].*[‘’]|«.*»|‹.*›)""", re.DOTALL)
_BRACKETS = {"(": ")", "[": "]", "{": "}"}
_JOINED = re.compile(r"[>›»→|；]")
_FORMS = """write [[A,B,C],[A,D]], or with quotes [["A","B","C"],["A","D"]]; [[]] for no category"""


def check_name(name: str) -> None:
    """Raise ValueError for a category name that is a missing value, or that another program's notation is still part of.

    A name in quotes or brackets, or with half of a pair of brackets, comes from a list that was written as text or split at the
    wrong places. Apostrophes and inches are part of a name, as in Levi's, '90s or 19" racks.
    """
    plain = unescape(name)
    if is_missing(name):
        raise ValueError(f"the category name {name!r} stands for a missing value; {_FORMS}")
    if _WRAPPED.fullmatch(plain):
        raise ValueError(f"the category name {name[:80]!r} has quotes around it; {_FORMS}")
    for opening, closing in _BRACKETS.items():
        if plain.startswith(opening) or (plain.endswith(closing) and plain.count(opening) < plain.count(closing)):
            raise ValueError(f"the category name {name[:80]!r} has a bracket around it or a half of one; {_FORMS}")
    name.encode()  # UnicodeEncodeError, a ValueError, for half of a surrogate pair


def joined_names(paths: Iterable[CategoryPath]) -> str | None:
    """A name of a column whose names all are whole paths, as `Home > Mugs` or `Home|Mugs`; None if they are not."""
    names = [unescape(name) for path in paths for name in path]
    return names[0] if names and all(map(_JOINED.search, names)) else None


def joined_reason(name: str) -> str:
    """What an error says of a column with `joined_names`."""
    return f"every name of this column is a path in one text, as {name[:80]!r}; a path is a list of names: {_FORMS}"


def parse_categories(text: str) -> tuple[CategoryPath, ...]:
    """Category paths from the text of one product; `[[]]` is no category at all.

    Two forms are read. Lists as JSON or Python writes them, every name in quotes: `[["Home", "Mugs"], ['Gifts']]`. And the
    form of the public files, `[[Clothing, Shoes & Jewelry,Men],[Novelty,Socks]]`: names have no quotes and may hold
    commas, so paths split at `],[` and names at a comma that no space follows.

    Raises:
        ValueError: the text has neither form (no outer brackets, a bracket inside a name, quotes around some names only),
            or a name is none (see `check_name`).
    """
    text = text.strip()
    paths = _quoted(text) if _QUOTED.fullmatch(text) else _plain(text)
    names = tuple(tuple(one_line(name) for name in path) for path in paths)
    for name in filter(None, (name for path in names for name in path)):
        check_name(name)
    return tuple(path for path in (tuple(filter(None, path)) for path in names) if path)


def _quoted(text: str) -> list[list[str]]:
    try:
        return json.loads(text)
    except json.JSONDecodeError:  # Python's quotes or escapes
        pass
    try:
        return literal_eval(text)
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"the categories {text[:80]!r} are neither JSON nor Python lists; {_FORMS}") from error


def _plain(text: str) -> list[list[str]]:
    if not (text.startswith("[[") and text.endswith("]]") and len(text) >= 4):
        raise ValueError(f"the categories {text[:80]!r} are not of the form [[A,B,C],[A,D]]; {_FORMS}")
    paths = text[2:-2].split("],[")
    for path in paths:
        if "[" in path or "]" in path:
            raise ValueError(f"the category path {path[:80]!r} has a bracket inside; {_FORMS}")
        if any((begin := opening.search(path)) and closing.search(path, begin.end()) for opening, closing in _QUOTES):
            raise ValueError(f"the category path {path[:80]!r} has quotes around some of its names only; {_FORMS}")
    return [re.split(r",(?! )", path) for path in paths]


def separated_by_spaces(texts: Collection[str]) -> str | None:
    """A text of a column whose commas all have a space after them, None if there is no such column.

    Without quotes such a comma belongs to a name, so `[[Home, Mugs]]` is one name. A column with nothing but such commas
    was more likely written by a program that separates names by ", ".
    """
    plain = [text for text in texts if "," in text and not _QUOTED.fullmatch(text.strip())]
    return plain[0] if plain and not any(re.search(r",(?! )", text) for text in plain) else None
