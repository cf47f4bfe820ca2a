"""A module of this package run as a process of its own: settings as its argument, then lines of JSON over its pipes. Both ends; no JAX."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import kdjax

LAST_WORDS = 20  # lines of its stderr
NO_TELEMETRY = {"HF_HUB_DISABLE_TELEMETRY": "1"}  # Hugging Face's libraries would send some


class ChildDied(Exception):
    """The process ended before it answered: its exit `status` and its `last_words`."""

    def __init__(self, status: int, last_words: str):
        super().__init__(f"exit status {status}: {last_words}")
        self.status, self.last_words = status, last_words


class Child:
    """The process, from its start to `kill` or `close`."""

    def __init__(self, module: str, settings: Mapping[str, Any], environment: Mapping[str, str] | None = None):
        path = [str(Path(kdjax.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the process)
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env={**os.environ, **NO_TELEMETRY, "PYTHONPATH": os.pathsep.join(path), **(environment or {})},
            text=True,
            encoding="utf-8",
        )
        assert self._process.stdin and self._process.stdout  # they are pipes
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self.pid = self._process.pid

    def exchange(self, message: object = None) -> Any:
        """Send a message, if there is one, and wait for the next line. Raises ChildDied."""
        try:
            if message is not None:
                self._stdin.write(json.dumps(message) + "\n")
                self._stdin.flush()
            line = self._stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line.endswith("\n"):
            status = self._process.wait()
            self._stderr.seek(0)
            lines = self._stderr.read().decode(errors="replace").splitlines()
            raise ChildDied(status, "\n".join(lines[-LAST_WORDS:]))
        return json.loads(line)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self.close()

    def close(self) -> None:
        """Let it end by itself: there will be no more messages."""
        with suppress(BrokenPipeError):
            self._stdin.close()
        self._process.wait()
        self._stdout.close()
        self._stderr.close()


class Parent:
    """The process's own end, iterated for the messages until there are no more. Made first of all: what is printed then goes to stderr."""

    def __init__(self):
        self._stdout = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)  # a library that prints must not break the protocol

    def __iter__(self) -> Iterator[Any]:
        while (message := self.receive()) is not None:
            yield message

    def receive(self) -> Any:
        """The next message, None after the last."""
        line = sys.stdin.readline()
        return json.loads(line) if line else None

    def send(self, message: object) -> None:
        """Answer one."""
        print(json.dumps(message), file=self._stdout, flush=True)
