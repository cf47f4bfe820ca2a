"""A machine that is about to be taken away says so by SIGTERM, some seconds before."""

import signal
from typing import Self

from jax.experimental import multihost_utils

from kdjax.training.processes import alone

STATUS = 143  # of a process that SIGTERM ended: 128 + 15


class Preempted(SystemExit):
    """Training was broken off by SIGTERM, behind step `step`, and is saved."""

    def __init__(self, step: int):
        super().__init__(STATUS)
        self.step = step


class Preemption:
    """Within this, SIGTERM does not end the process but is remembered; several processes all hear of it behind the same step.

    (There JAX listens to the signal, all the time, and agrees with the others on the step.)
    """

    def __init__(self):
        self.told = False

    def __enter__(self) -> Self:
        if alone():
            self._before = signal.signal(signal.SIGTERM, self._remember)
        return self

    def __exit__(self, *_) -> None:
        if alone():
            signal.signal(signal.SIGTERM, self._before)

    def _remember(self, *_) -> None:
        self.told = True

    def before_the_end_of(self, step: int) -> bool:
        """Whether the machine goes, so that this step has to be the last; asked once per step."""
        return self.told if alone() else multihost_utils.reached_preemption_sync_point(step)
