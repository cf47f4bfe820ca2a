"""One folder, one process: the lock of a workdir, which the operating system releases when its process ends, however it ends."""

import errno
import fcntl
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TextIO

from kdjax.errors import InputError

LOCK = ".lock"  # in the workdir; the file stays, since another process may be about to lock it
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)  # a file system mounted without them, as Lustre may be


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`, which is made if need be. Of several processes of one run, only the first takes it.

    `flock` holds between processes of one machine, and between machines that share the folder over NFS, or over Lustre mounted
    with `flock`. Where a file system has no locks, a warning is printed and the work goes on: it would be right in one process, and to
    refuse would make such file systems useless.

    Raises:
        InputError: another process holds the lock; names it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+", encoding="utf-8") as file:
        if not _lock(file, fcntl.LOCK_EX):
            print(
                f"warning: {folder} is on a file system without locks; start no second process with this folder",
                file=sys.stderr,
                flush=True,
            )
        holder = {"host": socket.gethostname(), "process": os.getpid(), "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}
        file.truncate(0)
        file.write(json.dumps(holder) + "\n")
        file.flush()
        os.fsync(file.fileno())  # for other machines
        try:
            yield
        finally:
            file.truncate(0)


def check_free(folder: Path) -> None:
    """Raise InputError if another process holds the lock of `folder`, which need not exist. Writes nothing."""
    try:
        with (folder / LOCK).open("r+", encoding="utf-8") as file:
            _lock(file, fcntl.LOCK_SH)
    except FileNotFoundError:
        pass


def _lock(file: TextIO, kind: int) -> bool:
    """Lock an open lock file until it is closed; False where its file system has no locks."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InputError(
            f"{Path(file.name).parent} is in use: {_holder(file)}. Wait until it has ended, or choose another --workdir"
        ) from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return False
    return True


def _holder(file: TextIO) -> str:
    file.seek(0)
    try:
        holder = json.loads(file.read())
        return f"process {holder['process']} on {holder['host']} has worked in it since {holder['since']}"
    except (ValueError, KeyError, TypeError):  # it is just being written, or not seen over the network yet
        return "another process works in it"


@contextmanager
def in_turn(path: Path, waiting: str, log: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock file `path`. Another process that holds it is waited for, and `log` is given the line `waiting`.

    Where the file system has no locks, `log` is given a warning and the work goes on, as in `locked`.
    """
    with path.open("a+", encoding="utf-8") as file:
        try:
            if not _lock(file, fcntl.LOCK_EX):
                log(
                    f"warning: {path.parent} is on a file system without locks; start no second process that writes to it"
                )
        except InputError:  # held
            log(waiting)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
