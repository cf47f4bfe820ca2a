"""Whether JAX starts on the devices that the environment asks for."""

import os
import re
import subprocess
import sys

from kdjax.errors import InputError
from kdjax.training.processes import has_tpu_chips

_START = "import jax; print(jax.devices()[0].platform)"
_FATAL = re.compile(r"F\d{4} ")  # how a line of a C++ library begins that ends the process
_NAMES = {"cuda": "gpu", "rocm": "gpu"}  # platform → the name that its devices carry
# Variables that cannot fail late: JAX checks them when it is imported, or launch.py overrides them, or any value is fine.
_SAFE = {
    "JAX_COMPILATION_CACHE_DIR",
    "JAX_DISABLE_MOST_OPTIMIZATIONS",
    "JAX_ENABLE_X64",
    "JAX_LOG_COMPILES",
    "JAX_TRACEBACK_FILTERING",
    "XLA_PYTHON_CLIENT_PREALLOCATE",
}


def check_backend() -> None:
    """Start JAX once, in a process of its own, if a variable of JAX or XLA is set that may keep it from starting.

    In this process JAX is started much later, after the teacher has been asked, because it takes a part of a GPU's memory; and
    XLA ends a process at once over a flag that it does not know. TPU chips belong to one process at a time, so there nothing
    is tried.

    Raises:
        InputError: JAX does not start, or starts on another platform than the first of JAX_PLATFORMS.
    """
    asked = os.environ.get("JAX_PLATFORMS", "")
    platforms = [name.strip() for name in asked.split(",") if name.strip()]
    given = {name: value for name, value in sorted(os.environ.items()) if name.startswith(("JAX_", "XLA_")) and value}
    if has_tpu_chips() or (set(platforms) <= {"cpu"} and given.keys() <= _SAFE | {"JAX_PLATFORMS"}):
        return
    done = subprocess.run(
        [sys.executable, "-c", _START], check=False, capture_output=True, text=True, encoding="utf-8", errors="replace"
    )
    found, lines = done.stdout.strip(), done.stderr.strip().splitlines()
    wanted = _NAMES.get(platforms[0], platforms[0]) if platforms else found
    if fatal := [line.partition("] ")[2] for line in lines if _FATAL.match(line)]:
        raise InputError(f"JAX cannot start with XLA_FLAGS={os.environ.get('XLA_FLAGS', '')!r}: {fatal[0]}")
    if done.returncode or found != wanted:
        why = f"it starts on {found}" if found else lines[-1] if lines else f"exit status {done.returncode}"
        shown = " ".join(f"{name}={value}" for name, value in given.items() if name not in _SAFE)
        raise InputError(
            f"JAX cannot start as this shell asks ({shown}): {why}. Correct or unset these variables; JAX_PLATFORMS=cpu alone "
            "always works"
        )
