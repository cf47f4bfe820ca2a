"""Reading CSV tables that must be whole: every fault is an error with the file and the row."""

import csv
import io
import re
from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path

from kdjax.data.files import is_missing, read_text
from kdjax.errors import InputError


def fault(path: Path, row: int, reason: str) -> InputError:
    """The error for one row; rows are counted as lines of the file from 1, the header's, and a row is where it begins."""
    return InputError(f"{path}, row {row}: {reason}")


def near_id(id: str, known: Collection[str]) -> str:
    """The end of an error about an id that is not known: the known one that means the same number or text, "" if there is none.

    Programs write the id 7 as 7.0 (a column with gaps in pandas), 07 or '7'.
    """
    near = next((other for other in known if _bare(other) == _bare(id)), None)
    return "" if near is None else f"; {near!r} is there, but ids are compared letter by letter: write both alike"


def _bare(id: str) -> str:
    bare = id.strip("'\"").casefold()
    return re.sub(r"\.0+$", "", bare.lstrip("0")) if re.fullmatch(r"\d+(\.0+)?", bare) else bare


def read_table(path: Path, columns: tuple[str, str]) -> list[tuple[int, str, str]]:
    """(row, first, second) of the two named columns for every row, in the file's order; other columns are passed over.

    The first column is an id and comes without white space around it. It must be there in every row, and the header must
    not come again.
    """
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    row, header, places, rows = 1, None, [], []
    try:
        for cells in reader:
            if header is None:
                header = cells
                places = _places(path, header, columns)
            elif cells:
                if len(cells) != len(header):
                    raise fault(path, row, f"{len(cells)} columns where the header has {len(header)}")
                first, second = (cells[place] for place in places)
                if not first.strip():
                    raise fault(path, row, f"the column '{columns[0]}' is empty")
                if first.strip().casefold() == columns[0].casefold():
                    raise fault(path, row, "the header comes again; delete this row")
                check_id(path, row, columns[0], first)
                rows.append((row, first.strip(), second))
            row = reader.line_num + 1
    except csv.Error as error:
        raise fault(path, row, f"the row is broken ({error}); look for an unbalanced quote") from error
    if header is None:
        raise InputError(f"{path}: the file is empty; its header should be {','.join(columns)}")
    return rows


def check_id(path: Path, row: int, column: str, id: str) -> None:
    """Raise InputError for an id that stands for a missing value."""
    if is_missing(id):
        raise fault(path, row, f"the column '{column}' is {id.strip()!r}, a missing value; write the id")


def _places(path: Path, header: list[str], columns: tuple[str, ...]) -> list[int]:
    names = [name.strip() for name in header]
    for column in columns:
        if column not in names:
            hint = f"; the header should be {','.join(columns)}, with commas" if len(names) == 1 else ""
            if near := get_close_matches(
                column.casefold(), folded := [name.casefold() for name in names], n=1, cutoff=0.7
            ):
                hint = f"; did you mean {names[folded.index(near[0])]!r}? Rename it {column!r}"
            raise fault(path, 1, f"there is no column '{column}'; the header has {', '.join(names)[:200]}{hint}")
        if names.count(column) > 1:
            raise fault(path, 1, f"the column '{column}' is there more than once")
    return [names.index(column) for column in columns]


def one_value(path: Path, columns: tuple[str, str]) -> dict[str, tuple[int, str]]:
    """A table that gives each id one value: id → (row, value). An id that comes again is an InputError."""
    table: dict[str, tuple[int, str]] = {}
    for row, key, value in read_table(path, columns):
        if key in table:
            raise fault(path, row, f"the {columns[0]} {key} is a duplicate of row {table[key][0]}")
        table[key] = (row, value)
    return table


def members(path: Path, columns: tuple[str, str]) -> dict[str, dict[str, int]]:
    """A table that gives each id its members, one a row: id → {member: row}. A member that comes again is an InputError."""
    table: dict[str, dict[str, int]] = {}
    for row, key, value in read_table(path, columns):
        member = value.strip()
        if not member:
            raise fault(path, row, f"the column '{columns[1]}' is empty")
        check_id(path, row, columns[1], member)
        group = table.setdefault(key, {})
        if member in group:
            raise fault(
                path, row, f"the {columns[1]} {member} of {columns[0]} {key} is a duplicate of row {group[member]}"
            )
        group[member] = row
    return table
