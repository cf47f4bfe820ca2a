"""How the benchmark speaks with the process of one side, and the one clock that times both sides."""

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from kdjax.child import Child, ChildDied, Parent
from kdjax.errors import InputError


class Channel(Parent):
    """The side's end. The clock runs from a command's arrival to its reply: wall seconds, and CPU seconds over all threads.

    Before it stops, `finish` waits for what a GPU still has to do, and says the largest memory that was in use there so far, in
    bytes; None where there is no GPU.
    """

    def __init__(self, finish: Callable[[], int | None]):
        super().__init__()
        self._finish = finish

    def receive(self) -> dict[str, Any] | None:
        """The next command, None after the last."""
        command = super().receive()
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return command

    def reply(self, **fields: Any) -> None:
        """Answer the command: `fields` plus seconds, cpu_seconds, peak_bytes (of a GPU, else the largest resident set
        so far) and which frameworks are loaded."""
        peak = self._finish()
        timing = {
            "seconds": time.perf_counter() - self._wall,
            "cpu_seconds": time.process_time() - self._cpu,
            "peak_bytes": _largest_resident_set() if peak is None else peak,
            "loaded": [name for name in ("jax", "torch") if name in sys.modules],
        }
        self.send(timing | fields)


def _largest_resident_set() -> int:
    """Bytes. Of Linux's two counts this is the one that begins anew with a program: getrusage's holds what the parent
    had before it started this one."""
    status = Path("/proc/self/status")
    if not status.is_file():  # macOS, where getrusage counts bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM:"))


class Side:
    """The benchmark's end: a process of one side, which is ready once it has answered the first time.

    What it compiles goes to a cache of its own in `folder`, empty at first: its first turn is as slow as a first turn is.
    """

    def __init__(self, name: str, module: str, settings: dict[str, Any], folder: Path):
        self.name = name
        self._cache = tempfile.TemporaryDirectory(dir=folder, prefix="compiled-")
        caches = dict.fromkeys(("JAX_COMPILATION_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"), self._cache.name)
        self._child = Child(f"kdjax.benchmark.{module}", settings, caches)

    def ask(self, **command: Any) -> dict[str, Any]:
        """Send a command and wait for its reply.

        Raises:
            InputError: the process died; its last words are shown.
        """
        try:
            return self._child.exchange(command)
        except ChildDied as death:
            raise InputError(f"benchmark: the side {self.name!r} died ({death})") from death

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception) -> None:
        if exception[0]:
            self._child.kill()
        else:
            self._child.close()
        self._cache.cleanup()
