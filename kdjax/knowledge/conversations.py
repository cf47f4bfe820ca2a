"""Conversations with a model about many sessions, of which all take a turn together."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from kdjax.knowledge.protocols import Ask, Log
from kdjax.teacher import Answer, Call


class Conversation(Protocol):
    """What was said so far, as (role, text), and the answers among it."""

    turns: list[tuple[str, str]]
    answers: list[Answer]


Talk = TypeVar("Talk", bound=Conversation)


def say(
    topic: str,
    what: str,
    conversations: Sequence[Talk],
    prompt: Callable[[Talk], str],
    *,
    ask: Ask,
    max_new_tokens: int,
    log: Log,
) -> None:
    """Say `prompt(conversation)` in every conversation, in one call of `ask`, and take up the answers."""
    if not conversations:
        return
    log(f"{topic}: asking about {len(conversations)} sessions for {what}")
    for one in conversations:
        one.turns.append(("user", prompt(one)))
    calls = [Call(tuple(one.turns), max_new_tokens) for one in conversations]
    for one, answer in zip(conversations, ask(calls), strict=True):
        one.answers.append(answer)
        one.turns.append(("assistant", answer.text.strip() or "(no answer)"))  # some templates drop empty turns
