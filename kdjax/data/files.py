"""Reading a domain's text files, with errors that say which file and which line."""

import os
from pathlib import Path

from kdjax.errors import InputError

# How programs write a missing value as text, in lower case.
MISSING = {"nan", "none", "null", "<na>", "na", "n/a", "#n/a", "nat", "undefined"}
BYTE_ORDER_MARK = "\ufeff"


def domain_folder(root: str, name: str) -> Path:
    """`root/name`, which must exist; the error lists the folders that `root` does hold.

    A run has a folder of this name too, so it must not lead out of where it stands.
    """
    if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or "\0" in name:
        raise InputError(f"data.domains: {name!r} is not the name of a folder")
    if not root:
        raise InputError(
            f"domain '{name}': no root is given; name the folder that holds '{name}/' (--config.data.root=DIR)"
        )
    parent = Path(os.path.expanduser(root))
    folder = parent / name
    if not os.path.isdir(parent):  # unlike Path's, False for a name that no file system takes
        raise InputError(f"domain '{name}': the root {parent} does not exist or is no folder")
    if not os.path.isdir(folder):
        there = ", ".join(sorted(path.name for path in parent.iterdir() if path.is_dir())) or "no folder at all"
        raise InputError(f"domain '{name}': there is no folder '{name}' in {parent}; it holds {there}")
    return folder


def read_text(path: Path) -> str:
    """The file's text, line ends untouched, without a byte order mark. A file that is missing or no UTF-8 text is an InputError."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: the file is missing") from None
    except (OSError, ValueError) as error:  # the latter: a zero byte in its name
        raise InputError(f"{path}: the file cannot be read ({getattr(error, 'strerror', error)})") from error
    if b"\0" in data:
        row = data[: data.index(b"\0")].count(b"\n") + 1
        raise InputError(f"{path}, row {row}: a zero byte; the file is damaged, or UTF-16, then convert it to UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"{path}, row {row}: the file is not UTF-8 ({error.reason}); convert it") from error
    if BYTE_ORDER_MARK in text:  # invisible, and part of an id
        row = text[: text.index(BYTE_ORDER_MARK)].count("\n") + 1
        raise InputError(
            f"{path}, row {row}: a byte order mark inside the file, as where two files were joined; remove it"
        )
    return text


def is_missing(text: str) -> bool:
    """Whether a program writes a missing value like this, in letters of either case."""
    return text.strip().casefold() in MISSING


def one_line(text: str) -> str:
    """`text` with every run of white space, line ends included, as one space: a prompt gives a product one line."""
    return " ".join(text.split())
