"""Whether JAX starts on the devices that the environment asks for."""

import os
import re
import subprocess
import sys

from kdjax.errors import InputError
from kdjax.training.processes import has_tpu_chips

_START = "import jax; print(jax.default_backend())"
_FATAL = re.compile(r"F\d{4} ")  # how a line of a C++ library begins that ends the process
_NAMES = {"cuda": "gpu", "rocm": "gpu"}  # as JAX calls the backend of these platforms


def check_backend() -> None:
    """Start JAX once, in a process of its own, if JAX_PLATFORMS names anything but the CPU or XLA_FLAGS is set.

    In this process JAX is started much later, when the teacher has been asked, because it takes a part of a GPU's memory; and
    a flag that XLA does not know ends a process at once. TPU chips belong to one process at a time, so there nothing is tried.

    Raises:
        InputError: JAX does not start, or on another platform than the first one that is named.
    """
    asked = os.environ.get("JAX_PLATFORMS", "")
    platforms = [name.strip() for name in asked.split(",") if name.strip()]
    if has_tpu_chips() or (set(platforms) <= {"cpu"} and not os.environ.get("XLA_FLAGS")):
        return
    done = subprocess.run(
        [sys.executable, "-c", _START], check=False, capture_output=True, text=True, encoding="utf-8", errors="replace"
    )
    found, lines = done.stdout.strip(), done.stderr.strip().splitlines()
    wanted = _NAMES.get(platforms[0], platforms[0]) if platforms else found
    if fatal := [line.partition("] ")[2] for line in lines if _FATAL.match(line)]:
        raise InputError(f"JAX cannot start with XLA_FLAGS={os.environ.get('XLA_FLAGS', '')!r}: {fatal[0]}")
    if done.returncode or found != wanted:
        said = f"it takes {found}" if found else lines[-1] if lines else f"exit status {done.returncode}"
        raise InputError(
            f"JAX_PLATFORMS={asked}: JAX finds no such device here, or cannot use it ({said}). Set JAX_PLATFORMS=cpu, or leave "
            "it unset to use what there is"
        )
