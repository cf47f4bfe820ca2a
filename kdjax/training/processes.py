"""Several processes that work on one experiment: how they find one another, and what they send one another.

The first one leads. It may have nothing to say for hours, because it asks the teacher first, so the others wait for its
messages at JAX's coordination service; texts and arrays then go from device to device. Nothing here is a pickle.
"""

import itertools
import json
import os
import socket
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

WAIT = 60_000  # milliseconds that one call waits for a message; it is repeated without end
LEAVE = 10  # seconds that a process waits for the others when it ends
HEARTBEAT = 30  # seconds without a heartbeat until a process counts as dead; heartbeats go on while Python is busy
JOIN = 300  # seconds until a process that waits for the others at the start gives up
SILENCE = 5  # seconds until it prints that it is waiting
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
# Variables of other launchers' scripts. JAX reads the first at most, which does not give it the number of processes.
UNREAD = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
_said = itertools.count()


def join(coordinator: str = "", count: int = 0, index: int = -1) -> None:
    """Find the other processes, if there are any. Must be called before JAX looks for devices.

    They are those of the arguments (HOST:PORT of the first, their number, the index of this one), or else those of the
    environment (a TPU pod, Slurm, Open MPI).

    Raises:
        InputError: some of the arguments are missing or make no sense, or no machine has the host's name; or the environment
            shows that there are other processes, but lacks something that JAX needs to find them.
    """
    if coordinator or count or index >= 0:
        host, _, port = coordinator.rpartition(":")
        if not (host and port.isdecimal() and 0 < int(port) < 2**16 and 0 <= index < count):
            raise InputError(
                f"--coordinator={coordinator} --processes={count} --process={index}: give all three, as in "
                "--coordinator=10.0.0.1:1234 --processes=2 --process=0 (and 1 on the other)"
            )
        try:
            socket.getaddrinfo(host.strip("[]"), int(port))
        except (OSError, UnicodeError) as error:  # the latter: a name that no machine can have
            raise InputError(
                f"--coordinator={coordinator}: no machine has the name {host!r} ({error}); {FLAGS}"
            ) from error
        _initialize(f"--coordinator={coordinator} --processes={count} --process={index}", coordinator, count, index)
    elif launcher := _launcher():
        _initialize(launcher)
    elif unread := [f"{name}={os.environ[name]}" for name in UNREAD if os.environ.get(name)]:
        raise InputError(
            f"{' '.join(unread)}: these variables do not start several processes here; unset them, or {FLAGS}"
        )


def _initialize(told: str, coordinator: str | None = None, count: int | None = None, index: int | None = None) -> None:
    """Connect to the others. JAX reads arguments that are None from the environment. `told` names the source in errors."""
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
    except (ValueError, KeyError, RuntimeError) as error:  # JAX's own errors are RuntimeErrors
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
    """The launcher that started this process as one of several, as text for errors; "" if there is none.

    Raises:
        InputError: a variable of the launcher is missing that JAX needs to find the others.
    """
    for launcher, (size, needed) in LAUNCHERS.items():
        tasks = os.environ.get(size, "1")
        if not (tasks.isdecimal() and int(tasks) > 1):
            continue
        missing = [name for name in needed if not os.environ.get(name)]
        if missing:
            raise InputError(
                f"{size}={tasks}: there are other processes, but to find them JAX also needs {', '.join(missing)}; {FLAGS}"
            )
        return f"{launcher} ({size}={tasks})"
    return "a TPU pod" if has_tpu_chips() else ""


def has_tpu_chips() -> bool:
    """Whether this machine has TPUs that JAX can use. JAX then always looks for others, since the environment does not show a pod."""
    return bool(find_spec("libtpu") and [*Path("/dev").glob("accel*"), *Path("/dev/vfio").glob("[0-9]*")])


def is_first() -> bool:
    """Whether this process leads."""
    return alone() or jax.process_index() == 0


def alone() -> bool:
    """Whether there are no others. Does not touch JAX's devices, which would take a GPU's memory before the teacher runs."""
    return not jax.distributed.is_initialized() or jax.process_count() == 1


def share_of(count: int) -> slice:
    """Which of `count` things are this process's: every n-th of them, for n processes."""
    return slice(jax.process_index(), count, jax.process_count())


def say(word: str, told: Mapping) -> None:
    """Send the others, from the first process, what to do next and what they need for it (JSON); does nothing if alone."""
    if not alone():
        multihost.get_jax_distributed_client().key_value_set(f"kdjax/{next(_said)}", word)
        text_from_first(json.dumps(told))


def stop(error: str = "") -> None:
    """Tell the others that there is nothing more to do, or why the first process cannot go on. Not through the devices, which
    may have failed."""
    if not alone():
        multihost.get_jax_distributed_client().key_value_set(f"kdjax/{next(_said)}", f"stop {error}")


def listen() -> tuple[str, dict]:
    """Wait, without limit, for the first process's next message: (word, values). After `stop` the values are {"error": text}."""
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
    """The first process's text, empty for None; the others pass None."""
    if alone():
        return text or ""
    data = np.frombuffer((text or "").encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int64(data.size)))
    padded = data if is_first() else np.zeros(size, np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(padded)).tobytes().decode()


def arrays_from_first(tree: dict | None) -> dict:
    """The first process's nested dict of arrays, as NumPy arrays; the others pass None."""
    if alone():
        assert tree is not None  # this is the first
        return tree
    spec = tree and jax.tree.map(lambda leaf: {"shape": leaf.shape, "dtype": str(leaf.dtype)}, tree)
    spec = json.loads(text_from_first(json.dumps(spec)))
    if not is_first():
        tree = jax.tree.map(lambda leaf: np.zeros(leaf["shape"], leaf["dtype"]), spec, is_leaf=lambda at: "shape" in at)
    return like_first(tree)


def like_first(tree):
    """The first process's arrays; the others pass arrays of the same structure, shapes and dtypes."""
    return tree if alone() else jax.tree.map(np.asarray, multihost_utils.broadcast_one_to_all(jax.device_get(tree)))


def gather(text: str) -> list[str]:
    """The texts of all processes, in the order of their indices; every process gets them."""
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
