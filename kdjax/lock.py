"""One folder, one process: a workdir's lock, which the operating system releases when the process ends, for whatever reason."""

import errno
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Literal, TextIO

from kdjax.errors import InputError

LOCK = ".lock"  # in the workdir; the file stays, since another process may be about to lock it
LOOK = 0.05  # seconds; far more than a process needs that only looks whether the lock is free
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)  # a file system mounted without them, as Lustre may be


@contextmanager
def locked(folder: Path) -> Iterator[Callable[[], None]]:
    """Hold the lock of `folder`, which is made if need be. If a run has several processes, only the first takes it.

    Yields a function that raises InputError once the folder was deleted or moved: another process can then take the lock of a
    new folder of this name, so it is called before anything is written.

    `flock` works between processes of one machine, and between machines that share the folder over NFS, or over Lustre mounted
    with `flock`. Where a file system has no locks, a warning is printed and the work goes on: a single process needs none, and
    to refuse would make such file systems useless.

    Raises:
        InputError: another process holds the lock; names it. Or something else has the lock file's place.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _open(folder, "a+") as file:
        if not _lock(file, fcntl.LOCK_EX):
            print(
                f"warning: {folder} is on a file system without locks; start no second process with this folder",
                file=sys.stderr,
                flush=True,
            )
        check_held = partial(_check_held, file, folder.absolute() / LOCK)
        check_held()  # the folder may have been deleted between opening and locking
        holder = {"host": socket.gethostname(), "process": os.getpid(), "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}
        file.truncate(0)
        file.write(json.dumps(holder) + "\n")
        file.flush()
        os.fsync(file.fileno())  # for other machines
        try:
            yield check_held
        finally:
            file.truncate(0)


def check_free(folder: Path) -> None:
    """Raise InputError if another process holds the lock of `folder`, which need not exist. Writes nothing."""
    try:
        with _open(folder, "r+") as file:
            _lock(file, fcntl.LOCK_SH)
    except FileNotFoundError:
        pass


def _open(folder: Path, mode: Literal["a+", "r+"]) -> TextIO:
    path = folder / LOCK
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise InputError(f"{path} should be a file, the lock of the folder, and is something else; delete it")
    return path.open(mode, encoding="utf-8")


def _check_held(file: TextIO, path: Path) -> None:
    """Raise InputError unless the open lock file is the one at `path`."""
    try:
        there = os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:  # no such file, or a stale handle of NFS
        there = False
    if not there:
        raise InputError(
            f"{path.parent} or its {LOCK} was deleted or moved while this run worked in it; nothing more is written there. Start "
            "the command again"
        )


def _lock(file: TextIO, kind: int) -> bool:
    """Lock an open lock file until it is closed; False where its file system has no locks."""
    try:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:  # perhaps by a process that only looks
            time.sleep(LOOK)
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
    except (ValueError, KeyError, TypeError):  # being written at this moment, or not visible over the network yet
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
