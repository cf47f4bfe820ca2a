"""Checkpoints of training through Orbax: the adapter, the optimizer, the best adapter so far and the counters; never the base."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp
from orbax.checkpoint.experimental.v1._src.saving.execution import _check_directory_consistency

from kdjax.training.processes import alone, is_first, like_first, text_from_first

KEPT = 2
UNFINISHED = (".orbax-checkpoint-tmp", ".old")  # how a folder is called while it is written, or deleted


class Checkpoints:
    """The checkpoints in a folder, by step. Orbax writes aside and renames, so a half-written one is never seen.

    Of several processes the first alone reads and writes; the others have no folder, and receive what it read. (Orbax's own
    Checkpointer, which keeps the last ones too, needs a folder that all processes share.)
    """

    def __init__(self, folder: str | Path | None):
        self._folder = Path(folder).absolute() if folder and is_first() else None

    def save(self, step: int, state: Any, progress: dict) -> None:
        """Write `state` (a pytree of arrays) and `progress` (JSON) as the checkpoint of `step`, and return when it is on disk."""
        path = text_from_first(str(self._folder / str(step)) if self._folder else None)
        if not self._folder:
            _check_directory_consistency(path)  # Orbax asks this of all processes, whoever is active
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        with _by_the_first():
            ocp.save_checkpointables(path, {"state": jax.device_get(state)}, custom_metadata=progress, overwrite=True)
        for old in self._steps()[:-KEPT]:
            (self._folder / str(old)).rename(self._folder / f"{old}.old")
        for path in self._folder.iterdir():
            if path.name.endswith(UNFINISHED):
                shutil.rmtree(path)

    def restore(self, like: Any) -> tuple[Any, dict] | None:
        """The latest checkpoint with the shapes, dtypes and placement of `like`, or None where there is none."""
        state, progress = self._read(like) if self._folder and self._steps() else (like, None)
        progress = json.loads(text_from_first(json.dumps(progress)))
        if progress is None:
            return None
        return jax.tree.map(lambda array, leaf: jax.device_put(array, leaf.sharding), like_first(state), like), progress

    def _read(self, like: Any) -> tuple[Any, dict]:
        path = self._folder / str(self._steps()[-1])
        abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), like)
        with _by_the_first():
            state = ocp.load_checkpointables(path, {"state": abstract})["state"]
            return state, ocp.checkpointables_metadata(path).custom_metadata

    def _steps(self) -> list[int]:
        names = [path.name for path in self._folder.iterdir()] if self._folder.is_dir() else []
        return sorted(int(name) for name in names if name.isdecimal())


@contextmanager
def _by_the_first() -> Iterator[None]:
    """Orbax shall not wait for the other processes."""
    context = ocp.Context()
    if not alone():
        context.multiprocessing.active_processes, context.multiprocessing.barrier_sync_key_prefix = {0}, "first"
    with context:
        yield
