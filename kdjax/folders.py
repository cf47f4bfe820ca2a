"""Folders that kdjax writes to, checked before anything is asked or written."""

import os
import re
from pathlib import Path

from kdjax.errors import InputError

URL = re.compile(r"(?:^|/)[A-Za-z][\w+.-]*:/")  # a Path has one of the two slashes; the libraries look for it anywhere
UNEXPANDED = re.compile(
    r"~[^/]*|(?:.*/)?\$(?:\w+|\{\w+\})(?=/|$)"
)  # left by a shell that did not, or could not, replace it
PATTERN = re.compile(r"[*?\[\]\x00-\x1f\x7f]")  # the libraries that write checkpoints take some of these for patterns
BELOW = Path(*["x" * 64] * 4)  # about as long as the longest path that is written below a workdir


def check_folder(path: Path, name: str, advice: str) -> None:
    """Check that `path` is a folder that can be written to, or that one can be made there. Makes nothing.

    Args:
        path: the folder.
        name: what the error calls it, as in "--workdir=runs/x".
        advice: what to do instead, the end of the error.

    Raises:
        InputError: it is a URL or holds one, has characters of patterns, is no folder or below a file, or cannot be written to.
    """
    text = str(path)
    try:
        whole = str(path.absolute())
    except FileNotFoundError as error:
        raise InputError(f"{name[:200]}: the current folder was deleted; change to another one first") from error
    if URL.search(whole):
        raise InputError(
            f"{name[:200]} is a URL, and only folders of this machine are written to; mount it, and name the folder it is mounted "
            f"at, or {advice}"
        )
    if found := UNEXPANDED.match(text):
        raise InputError(
            f"{name[:200]}: {found[0].rpartition('/')[2]} is neither a known user's home nor replaced by the shell; {advice}"
        )
    if found := PATTERN.search(text):
        raise InputError(f"{name[:200]!r} cannot be a folder: {found[0]!r} stands for other characters; {advice}")
    try:
        text.encode()
        (path / BELOW).exists()
        above = next(parent for parent in (path, *path.absolute().parents) if os.path.lexists(parent))
    except (OSError, UnicodeEncodeError) as error:
        raise InputError(
            f"{name[:200]!r} cannot be a folder ({getattr(error, 'strerror', error)}); {advice}"
        ) from error
    if not above.is_dir():
        what = "is a file" if above.is_file() else "is no folder"
        raise InputError(f"{name[:200]} cannot be a folder: {above} {what}; {advice}")
    if not os.access(above, os.W_OK | os.X_OK):
        raise InputError(
            f"{name[:200]} cannot be written: {above} is read-only, or not for this user to change; {advice}"
        )
