"""Progress of a loop: how far, how long, how long still."""

import time
from collections.abc import Callable
from typing import Any, Self

from rich.live import Live
from rich.text import Text

from kdjax.reporting.runlog import ConsoleLog

REDRAW = 0.1  # seconds between two drawings of the live line


def duration(seconds: float) -> str:
    """Write seconds as m:ss, or h:mm:ss from one hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Progress:
    """Reports the steps of a loop: on a terminal as one live line, elsewhere as a line at most every `every` seconds.

    The first update and the last one are always reported. The first step holds the compilation, so the remaining time is
    estimated from the steps after it. A terminal shows one live line at a time: `close` before another loop reports its
    own; the next update opens this one again. A total of 0 is not known.
    """

    def __init__(
        self,
        total: int,
        what: str,
        log: ConsoleLog,
        *,
        every: float = 15.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.total, self.what, self.done = total, what, 0
        self._log, self._clock = log, clock
        self._started = clock()
        self._warm: tuple[int, float] | None = None  # (steps done, time) after the first update
        self._shown_at, self._shown = float("-inf"), ""
        self._latest = ""
        self._live: Live | None = None
        self._every = REDRAW if log.console.is_interactive else every

    def skip(self, n: int) -> None:
        """Count `n` steps that an earlier part of the run did, and start the clock."""
        self.done += n
        self._started = self._clock()

    def update(self, n: int = 1, **fields: Any) -> None:
        """Count `n` more steps; `fields` (say, loss=0.7) are shown behind the times."""
        now = self._clock()
        self.done += n
        line = self._line(now, fields)
        self._warm = self._warm or (self.done, now)
        if now - self._shown_at >= self._every:
            self._show(line, now)
        self._latest = line

    def close(self) -> None:
        """Show the last update if it was not, and end the live line."""
        if self._latest != self._shown:
            self._show(self._latest, self._clock())
        if self._live:
            self._live.stop()
            self._live = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _line(self, now: float, fields: dict[str, Any]) -> str:
        count = f"{self.done}/{self.total}" if self.total else str(self.done)
        parts = [f"{self.what} {count}", f"{duration(now - self._started)} elapsed"]
        if self._warm and self._warm[0] < self.done < self.total:
            steps, since = self._warm
            seconds = (now - since) / (self.done - steps) * (self.total - self.done)
            parts.append(f"{duration(seconds)} left")
        return ", ".join(parts + [f"{name} {_short(value)}" for name, value in fields.items()])

    def _show(self, line: str, now: float) -> None:
        self._shown_at, self._shown = now, line
        if not self._log.console.is_interactive:
            self._log.say(line)
            return
        if self._live is None:
            self._live = Live(console=self._log.console, auto_refresh=False)
            self._live.start()
        self._live.update(Text(line, no_wrap=True, overflow="ellipsis"), refresh=True)


def _short(value: Any) -> str:
    return str(value) if isinstance(value, int | str) else f"{float(value):.4g}"
