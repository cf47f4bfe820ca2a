"""Conversations with a model about many sessions, of which all take a turn together."""

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from kdjax.errors import InputError
from kdjax.knowledge.protocols import Ask, Log
from kdjax.teacher import Answer, Call, NoAnswer


class Conversation(Protocol):
    """What was said so far, as (role, text), and the answers among it."""

    turns: list[tuple[str, str]]
    answers: list[Answer]


Talk = TypeVar("Talk", bound=Conversation)


class Conversations(Generic[Talk]):
    """Conversations about one topic. One in which a turn has no answer ends there: nobody may say the model said nothing."""

    def __init__(self, topic: str, conversations: Sequence[Talk], *, ask: Ask, max_new_tokens: int, log: Log):
        self._topic, self._all, self._ask, self._log = topic, conversations, ask, log
        self._max_new_tokens = max_new_tokens
        self._ended: dict[int, NoAnswer] = {}

    def say(self, what: str, conversations: Sequence[Talk], prompt: Callable[[Talk], str]) -> list[Talk]:
        """Say `prompt(conversation)` in these conversations, in one call of `ask`; returns those that were answered.

        Raises:
            InputError: more than half of all conversations have ended without an answer.
        """
        conversations = self.going(conversations)
        if not conversations:
            return []
        self._log(f"{self._topic}: asking about {len(conversations)} sessions for {what}")
        for one in conversations:
            one.turns.append(("user", prompt(one)))
        replies = self._ask([Call(tuple(one.turns), self._max_new_tokens) for one in conversations])
        for one, reply in zip(conversations, replies, strict=True):
            if isinstance(reply, NoAnswer):
                self._ended[id(one)] = reply
            else:
                one.answers.append(reply)
                one.turns.append(("assistant", reply.text.strip() or "(no answer)"))  # some templates drop empty turns
        check_answered(self._topic, [*self._ended.values()], len(self._all))
        return self.going(conversations)

    def going(self, conversations: Sequence[Talk]) -> list[Talk]:
        """Those of the conversations that have not ended without an answer."""
        return [one for one in conversations if id(one) not in self._ended]

    def end(self) -> None:
        """Log how many conversations were left out, and why the first."""
        log_left_out(self._topic, [*self._ended.values()], len(self._all), self._log)


def check_answered(topic: str, failed: Sequence[NoAnswer], total: int) -> None:
    """Raise InputError if the teacher has no answer about more than half of the sessions: that is no sample of them."""
    if 2 * len(failed) > total:
        raise InputError(
            f"{topic}: the teacher has no answer about {len(failed)} of {total} sessions; the first: {failed[0]}. "
            "What it did answer is kept; the same command again asks an endpoint what is missing"
        )


def log_left_out(topic: str, failed: Sequence[NoAnswer], total: int, log: Log) -> None:
    """Log a line about sessions that the teacher has no answer about, if there are any."""
    if failed:
        log(f"{topic}: {len(failed)} of {total} sessions are left out, without an answer of the teacher: {failed[0]}")
