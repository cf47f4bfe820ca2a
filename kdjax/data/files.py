"""Reading a domain's text files, with errors that say which file and which line."""

from pathlib import Path

from kdjax.errors import InputError


def domain_folder(root: str, name: str) -> Path:
    """`root/name`, which must exist; the error lists the folders that `root` does hold."""
    if not root:
        raise InputError(
            f"domain '{name}': no root is given; name the folder that holds '{name}/' (--config.data.root=DIR)"
        )
    parent = Path(root).expanduser()
    folder = parent / name
    if not parent.is_dir():
        raise InputError(f"domain '{name}': the root {parent} does not exist or is no folder")
    if not folder.is_dir():
        there = ", ".join(sorted(path.name for path in parent.iterdir() if path.is_dir())) or "no folder at all"
        raise InputError(f"domain '{name}': there is no folder '{name}' in {parent}; it holds {there}")
    return folder


def read_text(path: Path) -> str:
    """The file's text, line ends untouched, without a byte order mark. A missing or non-UTF-8 file is an InputError."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: the file is missing") from None
    except OSError as error:
        raise InputError(f"{path}: the file cannot be read ({error.strerror})") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"{path}, row {row}: the file is not UTF-8 ({error.reason}); convert it") from error


def one_line(text: str) -> str:
    """`text` with every run of white space, line ends included, as one space: a prompt gives a product one line."""
    return " ".join(text.split())
