"""Several processes that work on one experiment: how they find one another, and what they tell one another.

The first one leads. Its words may come after hours, since it asks the teacher before, so they are waited for at JAX's coordination
service; texts and arrays then go from device to device. Nothing here is a pickle.
"""

import itertools
import json
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import multihost

from kdjax.errors import InputError

WAIT = 60_000  # milliseconds of one look for a word; there is always another
LEAVE = 10  # seconds that a process waits for the others when it ends
HEARTBEAT = 30  # seconds without a sign of life, which waits for no Python, until a process is taken for dead
_said = itertools.count()


def join(coordinator: str = "", count: int = 0, index: int = -1) -> None:
    """Find the other processes, if there are any: those of the arguments (HOST:PORT of the first, how many, which is this one), or of the
    environment (a TPU pod, Slurm, Open MPI). Before JAX looks for devices.

    Raises:
        InputError: some of the arguments are missing, or make no sense.
    """
    if coordinator or count or index >= 0:
        if not (coordinator.rpartition(":")[0] and coordinator.rpartition(":")[2].isdecimal() and 0 <= index < count):
            raise InputError(
                f"--coordinator={coordinator} --processes={count} --process={index}: give all three, as in "
                "--coordinator=10.0.0.1:1234 --processes=2 --process=0 (and 1 on the other)"
            )
        _initialize(coordinator, count, index)
    elif _in_a_cluster():
        _initialize()


def _initialize(coordinator: str | None = None, count: int | None = None, index: int | None = None) -> None:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        coordinator, count, index, heartbeat_timeout_seconds=HEARTBEAT, shutdown_timeout_seconds=LEAVE
    )


def _in_a_cluster() -> bool:
    """Whether JAX can read from the environment who the others are. On a machine with TPUs it always asks, as a pod's hosts do not tell."""
    tasks = [os.environ.get(name, "1") for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")]
    chips = [*Path("/dev").glob("accel*"), *Path("/dev/vfio").glob("[0-9]*")]
    return any(number.isdecimal() and int(number) > 1 for number in tasks) or bool(find_spec("libtpu") and chips)


def is_first() -> bool:
    """Whether this process leads."""
    return alone() or jax.process_index() == 0


def alone() -> bool:
    """Whether there are no others. JAX's devices are not touched to say so: it takes a GPU's memory then, and the teacher comes before."""
    return not jax.distributed.is_initialized() or jax.process_count() == 1


def share_of(count: int) -> slice:
    """Which of `count` things are this process's: every n-th."""
    return slice(jax.process_index(), count, jax.process_count())


def say(word: str, told: Mapping) -> None:
    """The first process says what the others are to do next, and what they need for it (JSON); nothing where it is alone."""
    if not alone():
        multihost.get_jax_distributed_client().key_value_set(f"kdjax/{next(_said)}", word)
        text_from_first(json.dumps(told))


def stop(error: str = "") -> None:
    """The first process says that there is nothing more to do, or why it cannot go on; not by the devices, which may be in a state."""
    if not alone():
        multihost.get_jax_distributed_client().key_value_set(f"kdjax/{next(_said)}", f"stop {error}")


def listen() -> tuple[str, dict]:
    """What the first process says next, however long that takes; a `stop` tells {"error"}."""
    client, key = multihost.get_jax_distributed_client(), f"kdjax/{next(_said)}"
    while True:
        try:
            word, _, error = client.blocking_key_value_get(key, WAIT).partition(" ")
            break
        except jax.errors.JaxRuntimeError as why:
            if "DEADLINE_EXCEEDED" not in str(why):
                raise
    return (word, {"error": error}) if word == "stop" else (word, json.loads(text_from_first(None)))


def text_from_first(text: str | None) -> str:
    """The first process's text, empty for None; the others give None."""
    if alone():
        return text or ""
    data = np.frombuffer((text or "").encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int64(data.size)))
    padded = data if is_first() else np.zeros(size, np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(padded)).tobytes().decode()


def arrays_from_first(tree: dict | None) -> dict:
    """The first process's nested dict of arrays, as NumPy arrays; the others give None."""
    if alone():
        assert tree is not None  # this is the first
        return tree
    spec = tree and jax.tree.map(lambda leaf: {"shape": leaf.shape, "dtype": str(leaf.dtype)}, tree)
    spec = json.loads(text_from_first(json.dumps(spec)))
    if not is_first():
        tree = jax.tree.map(lambda leaf: np.zeros(leaf["shape"], leaf["dtype"]), spec, is_leaf=lambda at: "shape" in at)
    return like_first(tree)


def like_first(tree):
    """The first process's arrays, by those of the others, which have the same structure, shapes and dtypes."""
    return tree if alone() else jax.tree.map(np.asarray, multihost_utils.broadcast_one_to_all(jax.device_get(tree)))


def gather(text: str) -> list[str]:
    """Every process's text, in their order, for all of them."""
    if alone():
        return [text]
    data = np.frombuffer(text.encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.int64(data.size))
    padded = np.zeros(sizes.max(), np.uint8)
    padded[: data.size] = data
    return [
        row[:size].tobytes().decode()
        for row, size in zip(multihost_utils.process_allgather(padded), sizes, strict=True)
    ]
