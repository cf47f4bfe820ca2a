"""Several processes that work on one experiment: how they find one another, and what they tell one another.

The first one leads. Its words may come after hours, since it asks the teacher before, so they are waited for at JAX's coordination
service; texts and arrays then go from device to device. Nothing here is a pickle.
"""

import itertools
import json
import os
import sys
import threading
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
JOIN = 300  # seconds until a process that waits for the others at the start gives up
SILENCE = 5  # seconds after which it says that it waits
FLAGS = (
    "name the first process's machine and a free port there, how many processes there are and which one this is: "
    "--coordinator=HOST:PORT --processes=2 --process=0; a single process runs with --coordinator=localhost:PORT --processes=1 --process=0"
)
# Launcher → the variable with the number of processes, and those that JAX reads (jax/_src/clusters).
LAUNCHERS = {
    "Slurm": (
        "SLURM_STEP_NUM_TASKS",
        ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID"),
    ),
    "Open MPI": (
        "OMPI_COMM_WORLD_SIZE",
        ("OMPI_MCA_orte_hnp_uri", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"),
    ),
}
_said = itertools.count()


def join(coordinator: str = "", count: int = 0, index: int = -1) -> None:
    """Find the other processes, if there are any: those of the arguments (HOST:PORT of the first, their number, the index of this one),
    or of the environment (a TPU pod, Slurm, Open MPI). Before JAX looks for devices.

    Raises:
        InputError: some of the arguments are missing or make no sense; or the environment says that there are other processes,
            but not all that JAX needs to find them.
    """
    if coordinator or count or index >= 0:
        host, _, port = coordinator.rpartition(":")
        if not (host and port.isdecimal() and 0 < int(port) < 2**16 and 0 <= index < count):
            raise InputError(
                f"--coordinator={coordinator} --processes={count} --process={index}: give all three, as in "
                "--coordinator=10.0.0.1:1234 --processes=2 --process=0 (and 1 on the other)"
            )
        _initialize(f"--coordinator={coordinator} --processes={count} --process={index}", coordinator, count, index)
    elif launcher := _launcher():
        _initialize(launcher)


def _initialize(told: str, coordinator: str | None = None, count: int | None = None, index: int | None = None) -> None:
    """Connect to the others; what JAX is not told it reads from the environment. `told` says in errors where the numbers come from."""
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    said = threading.Timer(SILENCE, _say_waiting, [told])
    ended = threading.Timer(JOIN - SILENCE, _nobody_came, [told])  # JAX's own end is an abort with a trace of C++
    for timer in (said, ended):
        timer.daemon = True
        timer.start()
    try:
        jax.distributed.initialize(
            coordinator,
            count,
            index,
            initialization_timeout=JOIN,
            heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=LEAVE,
        )
    except (ValueError, KeyError, RuntimeError) as error:  # of these, JAX's own errors are RuntimeErrors
        raise InputError(f"{told}: JAX cannot find the other processes ({error}); {FLAGS}") from error
    finally:
        said.cancel()
        ended.cancel()


def _say_waiting(told: str) -> None:
    print(f"waiting for the other processes of {told}; {FLAGS}", file=sys.stderr, flush=True)


def _nobody_came(told: str) -> None:
    print(f"error: {told}: not all processes came within {JOIN} s; {FLAGS}", file=sys.stderr, flush=True)
    os._exit(1)  # the main thread waits in C++


def _launcher() -> str:
    """What started this process as one of several, as text for errors; "" if nothing did.

    Raises:
        InputError: a launcher that JAX cannot read the others from.
    """
    for launcher, (size, needed) in LAUNCHERS.items():
        tasks = os.environ.get(size, "1")
        if not (tasks.isdecimal() and int(tasks) > 1):
            continue
        missing = [name for name in needed if not os.environ.get(name)]
        if missing:
            raise InputError(
                f"{size}={tasks} says that there are others, but JAX needs {', '.join(missing)}, too, to find them; {FLAGS}"
            )
        return f"{launcher} ({size}={tasks})"
    return "a TPU pod" if has_tpu_chips() else ""


def has_tpu_chips() -> bool:
    """Whether this machine has TPUs that JAX can use. JAX then always asks who the others are, as a pod's environment does not say."""
    return bool(find_spec("libtpu") and [*Path("/dev").glob("accel*"), *Path("/dev/vfio").glob("[0-9]*")])


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
