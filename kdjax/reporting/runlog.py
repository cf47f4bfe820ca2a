"""What a run says while it runs: a line per event, TensorBoard curves, short lines on the console."""

import os
import socket
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from rich.console import Console, RenderableType
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from kdjax.reporting.files import json_line, open_to_append

FILE_WIDTH = 100  # columns for tables where the output is a file or a pipe, which has no width of its own


def plain_console(stderr: bool = False) -> Console:
    """A console that prints text as it is: no markup, no emoji codes, no colouring of numbers."""
    console = Console(markup=False, emoji=False, highlight=False, stderr=stderr)
    if not console.is_terminal:
        console.width = FILE_WIDTH
    return console


class ConsoleLog:
    """Short lines on a console, for jobs without a folder."""

    def __init__(self, console: Console | None = None):
        self.console = console or plain_console()

    def say(self, text: RenderableType) -> None:
        """Print a line (long ones are not wrapped), or anything that rich can render, such as a results table."""
        self.console.print(text, soft_wrap=isinstance(text, str))


class RunLog(ConsoleLog):
    """The log of one run in `workdir`: `log.jsonl` and `tensorboard/`, both written through at every call.

    Opening it again appends, so the log of a continued run holds all its parts. Every stage, step and result of a run is an
    event before it is written elsewhere; so `check` is called at each, and raises where the run must not go on.
    """

    def __init__(self, workdir: str | Path, console: Console | None = None, check: Callable[[], None] = lambda: None):
        super().__init__(console)
        self._check = check
        self._events = open_to_append(Path(workdir) / "log.jsonl")
        self._curves = _open_tensorboard(Path(workdir) / "tensorboard")

    def event(self, name: str, /, **fields: Any) -> None:
        """Append `{"time": UTC in ISO 8601, "event": name, **fields}`; numbers that are not finite become null.

        Raises ValueError for a field named `time` or `event`, which are the log's own.
        """
        if taken := {"time", "event"} & fields.keys():
            raise ValueError(
                f"log event {name!r}: the log itself writes {', '.join(sorted(taken))}; name the field otherwise"
            )
        self._check()
        stamp = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._events.write(json_line({"time": stamp, "event": name, **fields}) + "\n")
        self._events.flush()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add one point at `step` to the TensorBoard curve of each tag."""
        points = [Summary.Value(tag=tag, simple_value=float(value)) for tag, value in values.items()]
        self._curves.write(_record(step=int(step), summary=Summary(value=points)))
        self._curves.flush()

    def close(self) -> None:
        """Close both files."""
        self._events.close()
        self._curves.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def _record(**fields: Any) -> bytes:
    return Event(wall_time=time.time(), **fields).SerializeToString()


def _open_tensorboard(folder: Path) -> RecordWriter:
    """A new event file. `RecordWriter` and not `EventFileWriter`, which imports TensorFlow wherever that is installed."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
    writer = RecordWriter(path.open("ab"))  # appending: a log opened twice within a second keeps both parts
    writer.write(_record(file_version="brain.Event:2"))
    return writer
