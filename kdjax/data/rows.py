"""Reading JSON lines whose fields are known: every fault is an error with the file, the line and the field."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from kdjax.data.files import is_missing, one_line, read_text
from kdjax.errors import InputError

_LINES = "a file of JSON lines has one object a line, without brackets around them or commas between them"
_LISTS = {  # how a field that holds a list is written
    "items": '["a", "b"]',
    "bundles": '[["a", "b"]]',
    "intents": '["tea"]',
    "categories": '[["Home", "Mugs"]]',
}


@dataclass(frozen=True)
class Row:
    """One line: a JSON object, whose fields are read by the form they must have. Texts come as one line."""

    path: Path
    line: int  # from 1
    values: Mapping[str, Any]

    def fault(self, field: str, reason: str) -> InputError:
        return InputError(f"{self.path}, line {self.line}, field '{field}': {reason}")

    def text(self, field: str) -> str:
        """A text that is not blank."""
        return self._text(field, self.values[field])

    def texts(self, field: str, blank: bool = False) -> tuple[str, ...]:
        """A list of texts, not blank unless `blank`."""
        return tuple(self._text(field, value, blank) for value in self._list(field, self.values[field]))

    def lists(self, field: str) -> tuple[tuple[str, ...], ...]:
        """A list of lists of texts; empty where the field is left out."""
        outer = self._list(field, self.values.get(field, []))
        return tuple(tuple(self._text(field, value) for value in self._list(field, inner)) for inner in outer)

    def _text(self, field: str, value: Any, blank: bool = False) -> str:
        if not isinstance(value, str):
            advice = 'write it in quotes, as in "17"'
            if field in _LISTS:
                advice += "; products are named by their ids, not by their places"
            raise self.fault(field, f"{json.dumps(value)[:80]} is not a text; {advice}")
        text = one_line(value)
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise self.fault(field, f"{json.dumps(text)[:80]} holds half of a surrogate pair, which no UTF-8 text has")
        if not text and not blank:
            raise self.fault(field, "is empty")
        if is_missing(text):
            instead = "''" if blank else "the text itself, or leave the row out"
            raise self.fault(field, f"is '{text}', which stands for a missing value; write {instead}")
        return text

    def _list(self, field: str, value: Any) -> list:
        if not isinstance(value, list):
            raise self.fault(
                field, f"{json.dumps(value)[:80]} is not a list; write one in brackets, as in {_LISTS[field]}"
            )
        return value


def read_rows(path: Path, required: tuple[str, ...], optional: tuple[str, ...]) -> list[Row]:
    """The rows of a file, at least one, in order, with known fields only and no id twice. Blank lines are passed over."""
    rows: list[Row] = []
    line_of: dict[str, int] = {}
    for line, text in enumerate(read_text(path).split("\n"), start=1):
        if not text.strip():
            continue
        row = Row(path, line, _parse(path, line, text))
        _check_fields(row, required, optional)
        if all(value == field for field, value in row.values.items()):
            raise InputError(
                f"{path}, line {line}: every field holds its own name, as where a header became a row; delete it"
            )
        id = row.text("id")
        if id in line_of:
            raise row.fault("id", f"'{id}' is a duplicate of line {line_of[id]}")
        line_of[id] = line
        rows.append(row)
    if not rows:
        raise InputError(f"{path}: the file has no rows; a row is a JSON object with {', '.join(required)}")
    return rows


def _parse(path: Path, line: int, text: str) -> dict[str, Any]:
    try:
        values = json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        hint = f"; {_LINES}" if text.strip().startswith(("[", "]")) or text.strip().endswith(",") else ""
        raise InputError(
            f"{path}, line {line}: this is not JSON ({error.msg} at column {error.colno}){hint}"
        ) from error
    except (ValueError, RecursionError) as error:  # a field twice, thousands of digits, lists in lists in lists
        raise InputError(f"{path}, line {line}: this row cannot be read ({error})") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}, line {line}: a row must be a JSON object, {{...}}; {_LINES}")
    return values


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the field '{twice}' is there twice")
    return values


def _check_fields(row: Row, required: tuple[str, ...], optional: tuple[str, ...]) -> None:
    known = required + optional
    for field in row.values:
        if field not in known:
            nearest = get_close_matches(field, known, n=1)
            hint = f"did you mean '{nearest[0]}'?" if nearest else f"valid are {', '.join(known)}"
            raise row.fault(field, f"is not a field of this file; {hint}")
    for field in required:
        if field not in row.values:
            raise row.fault(field, "is missing")
