"""How the benchmark speaks with the process of one side, and the one clock that times both sides."""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import kdjax
from kdjax.errors import InputError


class Channel:
    """The side's end: commands come in as lines of JSON, each is answered by one; whatever else is printed goes to stderr.

    The clock runs from a command's arrival to its reply: wall seconds, and CPU seconds over all threads.
    """

    def __init__(self):
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The commands, until the benchmark closes the channel."""
        while (command := self.receive()) is not None:
            yield command

    def receive(self) -> dict[str, Any] | None:
        """The next command, None after the last."""
        line = sys.stdin.readline()
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return json.loads(line) if line else None

    def reply(self, **fields: Any) -> None:
        """Answer the command: `fields` plus seconds, cpu_seconds and peak_bytes (the largest resident set so far)."""
        timing = {
            "seconds": time.perf_counter() - self._wall,
            "cpu_seconds": time.process_time() - self._cpu,
            "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
        self._out.write(json.dumps(timing | fields) + "\n")
        self._out.flush()


class Side:
    """The benchmark's end: a process of one side, which is ready once it has answered the first time."""

    def __init__(self, name: str, module: str, settings: dict[str, Any], environment: dict[str, str] | None = None):
        self.name = name
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the process)
        path = [str(Path(kdjax.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"kdjax.benchmark.{module}", json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path), "OMP_WAIT_POLICY": "passive"} | (environment or {}),
            text=True,
            encoding="utf-8",
        )

    def ask(self, **command: Any) -> dict[str, Any]:
        """Send a command and wait for its reply.

        Raises:
            InputError: the process died; its last words are shown.
        """
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._process.wait()
            self._stderr.seek(0)
            words = self._stderr.read().decode(errors="replace").strip()[-2000:]
            raise InputError(f"benchmark: the side {self.name!r} died (exit {self._process.returncode}):\n{words}")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.wait()
        self._stderr.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception) -> None:
        if exception[0]:
            self._process.kill()
        self.close()
