"""The answer language as a byte automaton: `[[1,3],[2,5,6]]`, perhaps after free text that ends in a marker.

A language maps (state, byte) → (next state, bundles added) or None. States are tuples, found by walking; a bundle is added
by the comma before it, so the first does not count, and closing an answer never adds one.
"""

from dataclasses import dataclass
from typing import Any

State = tuple[Any, ...]  # its kind, then what is known there: numbers, the name of a language, a state within
Step = tuple[State, int]

DONE: State = ("done",)  # the answer is closed; only the end-of-turn token may follow
ENDED: State = ("ended",)  # it did
DIGITS = frozenset(b"0123456789")
MAX_JSON_DIGITS = 4


@dataclass(frozen=True)
class ItemsLanguage:
    """Bundles of two or more distinct products out of 1..n_items, ascending: an invalid answer cannot be spelt."""

    n_items: int

    @property
    def start(self) -> State:
        """Before the outer bracket."""
        return ("start", self.n_items)

    def step(self, state: State, byte: int) -> Step | None:
        """One byte further, or None where the byte is not allowed."""
        if state[0] == "in":
            return self._inside(state[2], state[3], byte)
        return _brackets(state, byte, ("in", self.n_items, 0, 0))

    def _inside(self, last: int, typed: int, byte: int) -> Step | None:
        """Inside a bundle: `last` is the product before (0: none yet), `typed` the number typed so far (0: nothing)."""
        highest = self.n_items if last else self.n_items - 1  # the first product must leave room for a second
        if byte in DIGITS:
            number = 10 * typed + byte - ord("0")
            return (("in", self.n_items, last, number), 0) if _can_complete(number, last, highest) else None
        if not last < typed <= highest:
            return None
        if byte == ord(",") and typed < self.n_items:
            return ("in", self.n_items, typed, 0), 0
        if byte == ord("]") and last:
            return ("closed", self.n_items), 0
        return None


@dataclass(frozen=True)
class JsonLanguage:
    """Any list of non-empty lists of positive whole numbers of at most four digits: syntax alone."""

    start: State = ("start", "json")

    def step(self, state: State, byte: int) -> Step | None:
        """One byte further, or None where the byte is not allowed."""
        if state[0] != "in":
            return _brackets(state, byte, ("in", "json", 0))
        digits = state[2]
        if byte in DIGITS:
            return (
                (("in", "json", digits + 1), 0) if digits < MAX_JSON_DIGITS and (digits or byte != ord("0")) else None
            )
        if digits and byte == ord(","):
            return ("in", "json", 0), 0
        return (("closed", "json"), 0) if digits and byte == ord("]") else None


@dataclass(frozen=True)
class Padded:
    """`inner` with what a chat template writes around an answer: `before` may be left out as a whole, `after` may not."""

    before: bytes
    inner: ItemsLanguage | JsonLanguage
    after: bytes

    @property
    def start(self) -> State:
        """Nothing of `before` written yet."""
        return ("before", self, 0)

    def step(self, state: State, byte: int) -> Step | None:
        """One byte further, or None where the byte is not allowed."""
        if state == DONE:
            return None
        kind, _, at = state
        if kind == "after":
            return (self._after(at + 1), 0) if byte == self.after[at] else None
        if kind == "before" and at < len(self.before):
            if byte == self.before[at]:
                return ("before", self, at + 1), 0
            if at > 0:
                return None
        step = self.inner.step(self.inner.start if kind == "before" else at, byte)
        if step is None:
            return None
        reached, added = step
        return self._after(0) if reached == DONE else ("within", self, reached), added

    def _after(self, written: int) -> State:
        return ("after", self, written) if written < len(self.after) else DONE


@dataclass(frozen=True)
class AfterMarker:
    """Free text up to the first `marker`, one space or none, then `inner`. The marker must not overlap with itself."""

    marker: bytes
    inner: ItemsLanguage | JsonLanguage | Padded

    @property
    def start(self) -> State:
        """Nothing of the marker read yet."""
        return ("free", self.inner.start, 0)

    def step(self, state: State, byte: int) -> Step | None:
        """One byte further; in the free text every byte is allowed."""
        if state[0] == "marked":
            return (self.inner.start, 0) if byte == ord(" ") else self.inner.step(self.inner.start, byte)
        if state[0] != "free":
            return self.inner.step(state, byte)
        matched = state[2]
        if byte == self.marker[matched]:
            matched += 1
        else:
            matched = int(byte == self.marker[0])
        return (("free", self.inner.start, matched) if matched < len(self.marker) else ("marked", self.inner.start)), 0


def _brackets(state: State, byte: int, inside: State) -> Step | None:
    """The outer list: `[` bundle (`,` bundle)* `]`."""
    kind, which = state[0], state[1] if len(state) > 1 else None
    if kind == "start" and byte == ord("["):
        return ("outer", which), 0
    if kind == "outer" and byte == ord("["):
        return inside, 0
    if kind == "closed" and byte == ord(","):
        return ("outer", which), 1
    if kind == "closed" and byte == ord("]"):
        return DONE, 0
    return None


def _can_complete(prefix: int, last: int, highest: int) -> bool:
    """Whether some number in (last, highest] begins with the digits of `prefix`."""
    if prefix == 0:
        return False
    low, high = prefix, prefix
    while low <= highest:
        if high > last:
            return True
        low, high = 10 * low, 10 * high + 9
    return False
