"""Checkpoints of training through Orbax: the adapter, the optimizer, the best adapter so far and the counters; never the base."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp
from orbax.checkpoint.experimental.v1._src.saving.execution import _check_directory_consistency

from kdjax.errors import InputError
from kdjax.training.processes import alone, is_first, like_first, text_from_first

KEPT = 2
ROOM = 2**20  # bytes, for what is written beside the arrays
REPLACED = ".old"  # how a checkpoint is called that another one takes the place of
UNFINISHED = (".orbax-checkpoint-tmp", REPLACED)  # what is cleared away once the new one is there


class Checkpoints:
    """The checkpoints in a folder, by step. Orbax writes aside and renames, so a half-written one is never seen; a
    digest tells a damaged one.

    Of several processes the first alone reads and writes; the others have no folder, and receive what it read. (Orbax's own
    Checkpointer, which keeps the last ones too, needs a folder that all processes share.)
    """

    def __init__(self, folder: str | Path | None):
        self._folder = Path(folder).absolute() if folder and is_first() else None

    def save(self, step: int, state: Any, progress: dict) -> None:
        """Write `state` (a pytree of arrays) and `progress` (JSON) as the checkpoint of `step`, and return when it is on disk.

        One of this step that is there already is valid until then.

        Raises:
            InputError: there is no room for it, or the folder cannot be written. The checkpoints before it stay.
        """
        folder = self._folder
        path = text_from_first(str(folder / str(step)) if folder else None)
        if not folder:
            _check_directory_consistency(path)  # Orbax asks this of all processes, whoever is active
            return
        state = jax.device_get(state)
        told = {"progress": progress, "sha256": _digest(state, progress)}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _check_room(folder, sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(state)))
            if Path(path).exists():  # moved aside, since Orbax would delete it before it writes
                shutil.rmtree(_replaced(path), ignore_errors=True)
                Path(path).rename(_replaced(path))
            with _by_the_first():
                ocp.save_checkpointables(path, {"state": state}, custom_metadata=told)
        except (OSError, ValueError) as error:  # the latter: how TensorStore says that a file cannot be written
            _put_back(folder)
            raise InputError(
                f"the checkpoint {path} cannot be written ({error}); the same command goes on from the one before"
            ) from error
        for old in _steps(folder)[:-KEPT]:
            (folder / str(old)).rename(_replaced(folder / str(old)))
        for left in folder.iterdir():
            if left.name.endswith(UNFINISHED):
                shutil.rmtree(left)

    def restore(self, like: Any) -> tuple[Any, dict] | None:
        """The latest checkpoint with the shapes, dtypes and placement of `like`, or None where there is none.

        Raises:
            InputError: it is damaged, or of another training.
        """
        state, progress = like, None
        if self._folder:
            _put_back(self._folder)
            if steps := _steps(self._folder):
                state, progress = _read(self._folder / str(steps[-1]), like)
        progress = json.loads(text_from_first(json.dumps(progress)))
        if progress is None:
            return None
        return jax.tree.map(lambda array, leaf: jax.device_put(array, leaf.sharding), like_first(state), like), progress


def _steps(folder: Path, suffix: str = "") -> list[int]:
    paths = folder.iterdir() if folder.is_dir() else []
    return sorted(int(path.stem) for path in paths if path.stem.isdecimal() and path.suffix == suffix)


def _replaced(path: str | Path) -> Path:
    return Path(f"{path}{REPLACED}")


def _put_back(folder: Path) -> None:
    """The last checkpoint takes its name again, where the one that was to replace it was not written to its end."""
    replaced = _steps(folder, REPLACED)[-1:]
    if replaced > _steps(folder)[-1:]:
        path = folder / str(replaced[0])
        _replaced(path).rename(path)


def _read(path: Path, like: Any) -> tuple[Any, dict]:
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), like)
    try:
        with _by_the_first():
            state = ocp.load_checkpointables(path, {"state": abstract})["state"]
            told = ocp.checkpointables_metadata(path).custom_metadata
        if told["sha256"] != _digest(state, told["progress"]):
            raise ValueError("its arrays or counters are not those that were written")
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"the checkpoint {path} is damaged ({error}); delete this folder to go on from the one before, or all of "
            f"{path.parent} to train anew"
        ) from error
    return state, told["progress"]


def _check_room(folder: Path, size: int) -> None:
    """Before Orbax runs into it, which prints its whole stack several times."""
    free = shutil.disk_usage(folder).free
    if free < size + ROOM:
        raise OSError(f"it takes {(size + ROOM) / 2**20:.0f} MiB, of which {free / 2**20:.0f} are free")


def _digest(state: Any, progress: dict) -> str:
    """sha256 (hex) of the counters and all arrays, in the tree's order."""
    digest = hashlib.sha256(json.dumps(progress, sort_keys=True).encode())
    for leaf in jax.tree.leaves(state):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


@contextmanager
def _by_the_first() -> Iterator[None]:
    """Orbax shall not wait for the other processes."""
    context = ocp.Context()
    if not alone():
        context.multiprocessing.active_processes, context.multiprocessing.barrier_sync_key_prefix = {0}, "first"
    with context:
        yield
