"""An append-only file of JSON lines that survives a kill at any moment and knows when it was damaged."""

import hashlib
import json
import os
from collections.abc import Collection, Iterable
from pathlib import Path


class Journal:
    """One entry, a JSON object, per line, with its sha256.

    A line counts once its newline is written; what follows the last newline was torn.
    """

    def __init__(self, path: Path):
        self.path = path

    def read(self) -> list[dict | None]:
        """What each whole line holds, in order; None for a line that is not what was written."""
        return [_entry(line) for line in self._lines()]

    def repair(self, damaged: Collection[int], aside: Path) -> None:
        """Cut a torn last line off, so that the next append begins a line of its own.

        The lines with the numbers `damaged` (from 0) are moved to the end of the file `aside`.
        """
        lines = self._lines()
        if damaged:
            _write(aside, "ab", [lines[number] for number in sorted(damaged)])
            rewritten = self.path.with_suffix(".unfinished")
            _write(rewritten, "wb", [line for number, line in enumerate(lines) if number not in damaged])
            rewritten.rename(self.path)
            fsync_folder(self.path.parent)
        elif self.path.is_file():
            os.truncate(self.path, sum(len(line) + 1 for line in lines))

    def append(self, entry: dict) -> None:
        """Add a line; when this returns, it is on the disk."""
        created = not self.path.exists()
        _write(self.path, "ab", [json.dumps({"entry": entry, "sha256": _sha256(entry)}).encode()])
        if created:
            fsync_folder(self.path.parent)

    def remove(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)
        fsync_folder(self.path.parent)

    def _lines(self) -> list[bytes]:
        content = self.path.read_bytes() if self.path.is_file() else b""
        return content.split(b"\n")[:-1]


def _entry(line: bytes) -> dict | None:
    try:
        whole = json.loads(line)
        return (
            whole["entry"] if isinstance(whole["entry"], dict) and whole["sha256"] == _sha256(whole["entry"]) else None
        )
    except (ValueError, KeyError, TypeError):
        return None


def _sha256(entry: dict) -> str:
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()


def _write(path: Path, mode: str, lines: Iterable[bytes]) -> None:
    with path.open(mode) as file:
        file.write(b"".join(line + b"\n" for line in lines))
        file.flush()
        os.fsync(file.fileno())


def fsync_folder(folder: Path) -> None:
    """Put a folder's list of names on the disk: a new, renamed or removed file is lasting only then."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
