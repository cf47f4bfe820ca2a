"""A short way to write a session, and a teacher that says what a test tells it to."""

from types import SimpleNamespace

from kdjax.data import Session


def make_session(id="s", titles=("HDMI cable", "Television", "Teapot"), bundles=((0, 1),), leaves=None, intents=None):
    leaves = leaves or ["Things"] * len(titles)
    return Session(
        id=id,
        items=tuple(f"{id}-{position}" for position in range(len(titles))),
        titles=tuple(titles),
        categories=tuple((("Root", leaf),) if leaf else () for leaf in leaves),
        bundles=tuple(bundles),
        intents=tuple(intents or [""] * len(bundles)),
    )


def words(text):
    """A tokenizer's stand-in: a token per word."""
    return len(text.split())


class ScriptedTeacher:
    """Answers with `reply(conversation)`: a text, or (text, finish reason). Keys count up; `asked` keeps each batch."""

    def __init__(self, reply):
        self.reply = reply
        self.asked = []

    def __call__(self, calls):
        self.asked.append(list(calls))
        return [self._answer(number, call) for number, call in enumerate(calls)]

    def _answer(self, number, call):
        reply = self.reply(call.conversation)
        text, reason = reply if isinstance(reply, tuple) else (reply, "stop")
        return SimpleNamespace(text=text, key=f"{len(self.asked)}.{number}", finish_reason=reason)
