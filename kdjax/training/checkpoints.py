"""Checkpoints of training through Orbax: the adapter, the optimizer, the best adapter so far and the counters; never the base."""

from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

KEPT = 2


class Checkpoints:
    """The checkpoints in a folder, by step. Orbax writes aside and renames, so a half-written one is never seen."""

    def __init__(self, folder: str | Path):
        policy = ocp.training.preservation_policies.LatestN(KEPT)
        self._inner = ocp.training.Checkpointer(
            Path(folder).absolute(), preservation_policy=policy, cleanup_tmp_directories=True
        )

    def save(self, step: int, state: Any, progress: dict) -> None:
        """Write `state` (a pytree of arrays) and `progress` (JSON) as the checkpoint of `step`, and return when it is on disk."""
        self._inner.save_checkpointables(step, {"state": state}, custom_metadata=progress, force=True)

    def restore(self, like: Any) -> tuple[Any, dict] | None:
        """The latest checkpoint with the shapes, dtypes and placement of `like`, or None where there is none."""
        latest = self._inner.latest
        if latest is None:
            return None
        abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), like)
        state = self._inner.load_checkpointables(latest.step, {"state": abstract})["state"]
        return state, self._inner.checkpointables_metadata(latest.step).custom_metadata

    def close(self) -> None:
        """Wait for what is being written."""
        self._inner.close()
