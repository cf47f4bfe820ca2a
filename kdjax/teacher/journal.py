"""An append-only file of JSON lines that survives a kill at any moment."""

import json
import os
from pathlib import Path

from kdjax.errors import InputError


class Journal:
    """One JSON object per line. A line counts once its newline is written; what follows the last newline was torn."""

    def __init__(self, path: Path):
        self.path = path

    def read(self) -> list[dict]:
        """All whole entries, in order.

        Raises:
            InputError: a whole line is not a JSON object (the file was damaged, not torn).
        """
        entries = []
        for number, line in enumerate(self._whole().splitlines(), start=1):
            try:
                entry = json.loads(line)
            except ValueError as error:
                raise self.broken(number, str(error)) from error
            if not isinstance(entry, dict):
                raise self.broken(number, f"expected a JSON object, found {type(entry).__name__}")
            entries.append(entry)
        return entries

    def broken(self, number: int, why: str) -> InputError:
        """The error to raise for line `number` (1-based)."""
        return InputError(f"{self.path}, line {number}: {why}; delete that line, its calls will be asked again")

    def repair(self) -> None:
        """Cut a torn last line off, so that the next append begins a line of its own."""
        if self.path.is_file():
            os.truncate(self.path, len(self._whole()))

    def append(self, entry: dict) -> None:
        """Add a line; when this returns, it is on the disk."""
        created = not self.path.exists()
        with self.path.open("ab") as file:
            file.write(json.dumps(entry).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if created:
            fsync_folder(self.path.parent)

    def remove(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)
        fsync_folder(self.path.parent)

    def _whole(self) -> bytes:
        content = self.path.read_bytes() if self.path.is_file() else b""
        return content[: content.rfind(b"\n") + 1]


def fsync_folder(folder: Path) -> None:
    """Put a folder's list of names on the disk: a new, renamed or removed file is lasting only then."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
