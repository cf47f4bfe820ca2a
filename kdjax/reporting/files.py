"""JSON on disk: written whole or not at all, the same bytes for the same content, errors that name file and line."""

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from kdjax.errors import InputError

UNFINISHED = ".tmp"


def is_leftover(path: Path) -> bool:
    """Whether this is a file whose writer was killed: hidden, and complete nowhere."""
    return path.name.startswith(".") and path.name.endswith(UNFINISHED)


def plain(value: Any) -> Any:
    """Turn what a run holds into what JSON can hold: tuples and arrays become lists, array scalars numbers, paths text.

    A number that is not finite becomes None, because JSON has no spelling for it.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # NumPy and JAX arrays and scalars
        return plain(value.tolist())
    return value


def json_line(value: Any) -> str:
    """One line of JSON in UTF-8, keys in the order they came. Raises TypeError for what JSON cannot hold."""
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False)


@contextmanager
def _whole(path: Path) -> Iterator[TextIO]:
    """Write beside `path` and rename at the end: a reader, or a killed run, never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}{UNFINISHED}")
    try:
        with beside.open("w", encoding="utf-8", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` atomically as UTF-8; parent folders are made."""
    with _whole(Path(path)) as file:
        file.write(text)


def write_json(path: str | Path, value: Any) -> None:
    """Write canonical JSON atomically: sorted keys, two spaces, UTF-8, numbers that are not finite as null."""
    write_text(path, json.dumps(plain(value), sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object per line atomically; the keys of a row stay in their order, for people to read."""
    with _whole(Path(path)) as file:
        file.writelines(json_line(row) + "\n" for row in rows)


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a file that holds one JSON object. Raises InputError naming the file where it does not."""
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # the last: lists in lists in lists
        raise InputError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """Read one JSON object per line; blank lines are skipped.

    Raises InputError naming file and line where a line is not a JSON object, and the file where there is none.
    """
    return [row for _, row in numbered_jsonl(path)]


def numbered_jsonl(path: str | Path) -> list[tuple[int, dict[str, Any]]]:
    """The rows of `read_jsonl`, each after the number of its line, from 1."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    rows = []
    with path.open("rb") as file:  # bytes: only "\n" ends a line, and bad UTF-8 is an error of its own line
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{path}, line {number}: not JSON ({error}); mend or remove the line") from error
            if not isinstance(row, dict):
                raise InputError(f"{path}, line {number}: expected an object {{...}}, found {type(row).__name__}")
            rows.append((number, row))
    return rows


def open_to_append(path: str | Path) -> TextIO:
    """Open a file of lines for appending; a last line that a killed run left torn is cut off first."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = path.read_bytes() if path.exists() else b""
    if content and not content.endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)
    return path.open("a", encoding="utf-8", newline="\n")
