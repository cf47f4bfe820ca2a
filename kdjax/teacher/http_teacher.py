"""The HTTP teacher: prompts asked side by side, again where that may help, each answered or accounted for."""

import random
import threading
from collections.abc import Callable, Generator, Sequence
from itertools import chain
from queue import Empty, SimpleQueue

from kdjax.errors import InputError
from kdjax.teacher.calls import Request
from kdjax.teacher.endpoint import Endpoint
from kdjax.teacher.replies import Failure, NoAnswer, name_failures

FIRST_WAIT = 2.0  # seconds before the second attempt; doubled before each further one
GIVE_UP = 16  # prompts failed one after the other: then it is not the prompts

Outcome = tuple[Request, tuple[dict, str] | Failure]  # what the endpoint said, or why it did not


class HttpWorker:
    """Keeps `side_by_side` requests under way at an endpoint."""

    def __init__(self, endpoint: Endpoint, side_by_side: int, log: Callable[[str], None]):
        self.endpoint, self.side_by_side, self._log = endpoint, side_by_side, log
        self.setting: dict = {}

    def check(self, requests: Sequence[Request]) -> None:
        """Raise InputError if a request asks for what an endpoint does not give."""
        if any(request.call.top_k_logprobs for request in requests):
            raise InputError("an HTTP teacher gives no log-probabilities (top_k_logprobs), only 'hf' does")

    def check_model(self) -> None:
        """Raise InputError if the key is missing. Nothing is sent."""
        self.endpoint.check_key()

    def start(self) -> None:
        """Raise InputError if the key is missing; there is nothing to start."""
        self.check_model()

    def ask(self, batches: Sequence[Sequence[Request]]) -> Generator[list[tuple[Request, dict | NoAnswer]]]:
        """Yield each reply when it comes, also one that is no answer; the batches play no part.

        Raises:
            InputError: at the end, if prompts have no reply; says how many, and why.
        """
        requests = list(chain(*batches))
        waiting: SimpleQueue[Request] = SimpleQueue()
        outcomes: SimpleQueue[Outcome | None] = SimpleQueue()
        stopped = threading.Event()
        # In random order, so that prompts that are refused one by one are not all at the beginning.
        for request in random.sample(requests, len(requests)):
            waiting.put(request)
        running = min(self.side_by_side, len(requests))
        for _ in range(running):  # daemons: an interrupted pass does not wait for requests under way
            threading.Thread(target=self._serve, args=(waiting, outcomes, stopped), daemon=True).start()
        failed: list[tuple[Request, Failure]] = []
        answered = in_a_row = 0
        try:
            while running:
                if (outcome := outcomes.get()) is None:
                    running -= 1
                    continue
                request, said = outcome
                if isinstance(said, Failure):
                    failed.append((request, said))
                    in_a_row += 1
                    if in_a_row >= GIVE_UP:
                        stopped.set()  # requests under way still end, so that no answer that was paid for is lost
                    if isinstance(said, NoAnswer):
                        self.setting = {"url": self.endpoint.url}
                        yield [(request, said)]
                else:
                    row, answered_by = said
                    answered, in_a_row = answered + 1, 0
                    self.setting = {"url": self.endpoint.url, "answered_by": answered_by}
                    yield [(request, row)]
        finally:
            stopped.set()
        if answered + sum(isinstance(failure, NoAnswer) for _, failure in failed) < len(requests):
            raise self._shortfall(len(requests), answered, failed)

    def close(self) -> None:
        """Nothing is left open between two passes."""

    def _serve(
        self, waiting: SimpleQueue[Request], outcomes: SimpleQueue[Outcome | None], stopped: threading.Event
    ) -> None:
        """Ask until nothing waits; then the outcome is None."""
        try:
            while not stopped.is_set():
                request = waiting.get_nowait()
                try:
                    outcomes.put((request, self._answer(request, stopped)))
                except Failure as failure:
                    outcomes.put((request, failure))
                    if failure.hopeless:
                        stopped.set()
        except Empty:
            pass
        finally:
            outcomes.put(None)

    def _answer(self, request: Request, stopped: threading.Event) -> tuple[dict, str]:
        attempt = 1
        while True:
            try:
                return self.endpoint.ask(request)
            except Failure as failure:
                if not failure.again or attempt >= failure.attempts:
                    raise
                wait = wait_before_next(attempt, failure.wait)
                self._log(f"teacher {self.endpoint.model}: {failure}; attempt {attempt + 1} in {wait:.1f} s")
                if stopped.wait(wait):
                    raise
            attempt += 1

    def _shortfall(self, total: int, answered: int, failed: Sequence[tuple[Request, Failure]]) -> InputError:
        unasked = total - answered - len(failed)
        text = f"teacher {self.endpoint.model} at {self.endpoint.url}: {len(failed)} of {total} prompts have no answer"
        text += f", and {unasked} were not asked any more, as they would have none either" if unasked else ""
        return InputError(text + name_failures(failed, answered))


def wait_before_next(attempt: int, asked_for: float) -> float:
    """Seconds to wait after an attempt (the first is 1): twice as long each time, never less than the endpoint asks for.

    A random part keeps requests that failed together from coming back together.
    """
    backoff = FIRST_WAIT * 2 ** (attempt - 1)
    return max(asked_for, backoff / 2) + random.uniform(0, backoff / 2)
