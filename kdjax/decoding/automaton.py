"""The answer language compiled over a tokenizer's vocabulary: one small table on the device, one look-up per step.

`next state = transitions[state, class_of_token[token]]`, -1 where the token is not allowed. A token is legal only if the
answer can still be closed within the tokens that remain, so an invalid or unfinished answer is impossible.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from kdjax.decoding.language import DONE, ENDED, AfterMarker, ItemsLanguage, JsonLanguage, Padded, State
from kdjax.errors import InputError
from kdjax.sources import Tokenizer

MODES = ("none", "json", "items")
MAX_BUNDLES = 7
UNREACHABLE = 1 << 20
Language = ItemsLanguage | JsonLanguage | Padded | AfterMarker


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Automaton:
    """Tables over states × token classes. State ids of several languages (one per session size) live side by side.

    `adds` counts the bundles that a token begins beyond the first; `distance` is the fewest tokens to the end without any;
    `forced` is the token of a state that has but one, -1 elsewhere.
    """

    transitions: Int[Array, "states classes"]
    adds: Int[Array, "states classes"]
    distance: Int[Array, " states"]
    forced: Int[Array, " states"]
    class_of_token: Int[Array, " vocab"]

    def legal(
        self, state: Int[Array, " batch"], added: Int[Array, " batch"], remaining: Int[Array, "*batch"]
    ) -> Bool[Array, "batch vocab"]:
        """Which tokens may come next; `remaining` is how many more may follow that one."""
        following = self.transitions[state]
        fits = self.distance[jnp.maximum(following, 0)] <= jnp.expand_dims(remaining, -1)
        allowed = (following >= 0) & fits & (added[:, None] + self.adds[state] < MAX_BUNDLES)
        return allowed[:, self.class_of_token]

    def advance(self, state: Int[Array, " batch"], added: Int[Array, " batch"], token: Int[Array, " batch"]):
        """The state and the number of bundles beyond the first after `token`."""
        kind = self.class_of_token[token]
        return self.transitions[state, kind], added + self.adds[state, kind]


def session_language(mode: str, n_items: int, marker: str = "", padding: tuple[str, str] = ("", "")) -> Language:
    """The language of one session's answer under the constraint "json" or "items"; after free text where a marker is given.

    `padding` is what the chat template writes before and after an answer (`Tokenizer.answer_padding`).
    """
    if mode not in MODES[1:]:
        raise InputError(f"eval.constraint={mode!r} is not a constraint; choose from {', '.join(MODES)}")
    answer = JsonLanguage() if mode == "json" else ItemsLanguage(n_items)
    before, after = (text.encode() for text in padding)
    if marker:
        before = b""  # part of the free text
    inner = Padded(before, answer, after) if before or after else answer
    return AfterMarker(marker.encode(), inner) if marker else inner


def compile_automaton(
    languages: Sequence[Language], tokenizer: Tokenizer, vocab_size: int, budget: int
) -> tuple[Automaton, list[int]]:
    """Walk every token from every reachable state. Returns the tables and the start state of each language.

    `vocab_size` is the model's (its head may be wider than the tokenizer); `budget` is the most tokens of an answer, the
    end-of-turn token included.

    Raises:
        InputError: the tokenizer cannot spell an answer, or the budget is too small for the shortest.
    """
    rows, distance, starts = _reach(languages, tokenizer, budget)
    return _tables(rows, distance, vocab_size), starts


def check_budget(languages: Sequence[Language], tokenizer: Tokenizer, budget: int) -> None:
    """Raise what `compile_automaton` would; no array is made on a device."""
    _reach(languages, tokenizer, budget)


def refused_target(
    languages: Sequence[Language], tokenizer: Tokenizer, targets: Sequence[Sequence[int]]
) -> tuple[int, str] | None:
    """The index of the first target (token ids) that is no answer in its language, and why; None if all are.

    A target that is refused here would be trained, and could never be generated.
    """
    spellings, ends = tokenizer.token_bytes(), set(tokenizer.eos_ids)
    known: dict[Language, dict] = {language: {} for language in languages}
    for index, (language, target) in enumerate(zip(languages, targets, strict=True)):
        steps, state, bundles = known[language], language.start, 1
        for place, token in enumerate(target[:-1]):
            if (state, token) not in steps:
                text = None if token in ends else spellings[token]
                steps[state, token] = _walk(language, state, text) if text else None
            step = steps[state, token]
            if step is None:
                return index, f"token {place + 1}, {tokenizer.inner.id_to_token(token)!r}, may not come there"
            state, bundles = step[0], bundles + step[1]
        if state != DONE or target[-1] != tokenizer.eos_id:
            return index, "it does not end as an answer does"
        if bundles > MAX_BUNDLES:
            return index, f"it names {bundles} bundles, and an answer at most {MAX_BUNDLES}"
    return None


def _reach(languages: Sequence[Language], tokenizer: Tokenizer, budget: int):
    """Moves and distances to the end of every reachable state, and the start state of each language."""
    spellings = _Spellings(tokenizer)
    ids: dict[State, int] = {ENDED: 0, DONE: 1}
    rows: list[dict[int, tuple[int, int]]] = [{}, {tokenizer.eos_id: (0, 0)}]
    for language in dict.fromkeys(languages):
        _explore(language, spellings, ids, rows)
    starts = [ids[language.start] for language in languages]
    distance = _distances(rows)
    worst = max((int(distance[start]) for start in starts), default=0)
    if worst > budget:
        what = (
            "the tokenizer cannot spell an answer"
            if worst >= UNREACHABLE
            else f"the shortest answer takes {worst} tokens"
        )
        raise InputError(f"eval.max_new_tokens={budget}: {what}")
    return rows, distance, starts


class _Spellings:
    """Vocabulary bytes, sorted by what they can be good for."""

    def __init__(self, tokenizer: Tokenizer):
        ends = set(tokenizer.eos_ids)  # special tokens have no bytes, but not every model declares these special
        self.all = {token: text for token, text in enumerate(tokenizer.token_bytes()) if text and token not in ends}
        self.answer = {token: text for token, text in self.all.items() if set(text) <= set(b" \t\r\n[],0123456789")}
        self._by_first: dict[int, dict[int, bytes]] = {}
        for token, text in self.all.items():
            self._by_first.setdefault(text[0], {})[token] = text

    def to_walk(self, language: Language, state: State) -> dict[int, bytes]:
        """The tokens that must be walked from `state`: all others are illegal there, or stay in the free text unmatched."""
        if not isinstance(language, AfterMarker) or state[0] != "free":
            return self.answer
        marker = language.marker
        first = {token: text for token, text in self.all.items() if marker[0] in text}
        return first | self._by_first.get(marker[state[2]], {})


def _explore(
    language: Language, spellings: _Spellings, ids: dict[State, int], rows: list[dict[int, tuple[int, int]]]
) -> None:
    """Breadth-first over token transitions; new states get the next id and their row {token: (next id, bundles added)}."""
    waiting: deque[State] = deque()

    def number(state: State) -> int:
        if state not in ids:
            ids[state] = len(rows)
            rows.append({})
            waiting.append(state)
        return ids[state]

    number(language.start)
    while waiting:
        state = waiting.popleft()
        row = rows[ids[state]]
        if state[0] == "free":
            row.update(dict.fromkeys(spellings.all, (number((*state[:2], 0)), 0)))
        for token, text in spellings.to_walk(language, state).items():
            reached = _walk(language, state, text)
            if reached is None:
                row.pop(token, None)
            else:
                row[token] = (number(reached[0]), reached[1])


def _walk(language: Language, state: State, text: bytes) -> tuple[State, int] | None:
    added = 0
    for byte in text:
        step = language.step(state, byte)
        if step is None:
            return None
        state, more = step
        added += more
    return state, added


def _distances(rows: list[dict[int, tuple[int, int]]]) -> np.ndarray:
    """Fewest tokens from each state to the end, the end-of-turn token included (backward breadth-first search).

    Only tokens that add no bundle count: at the bound on bundles the others are no way out.
    """
    before: list[set[int]] = [set() for _ in rows]
    for state, row in enumerate(rows):
        for following, added in row.values():
            if not added:
                before[following].add(state)
    distance = np.full(len(rows), UNREACHABLE, np.int32)
    distance[0] = 0
    waiting = deque([0])
    while waiting:
        state = waiting.popleft()
        for earlier in before[state]:
            if distance[earlier] == UNREACHABLE:
                distance[earlier] = distance[state] + 1
                waiting.append(earlier)
    return distance


def _tables(rows: list[dict[int, tuple[int, int]]], distance: np.ndarray, vocab_size: int) -> Automaton:
    """Dense tables over classes of tokens that behave alike in every state; class 0 is legal nowhere."""
    columns: dict[int, list[tuple[int, int, int]]] = {}
    for state, row in enumerate(rows):
        for token, (following, added) in row.items():
            columns.setdefault(token, []).append((state, following, added))
    classes: dict[tuple, int] = {(): 0}
    class_of_token = np.zeros(vocab_size, np.int32)
    for token, column in columns.items():
        class_of_token[token] = classes.setdefault(tuple(column), len(classes))
    shape = _round_up(len(rows)), _round_up(len(classes))
    transitions, adds = np.full(shape, -1, np.int32), np.zeros(shape, np.int32)
    for moves, number in classes.items():
        for state, following, added in moves:
            transitions[state, number] = following
            adds[state, number] = added
    room = np.full(shape[0], UNREACHABLE, np.int32)
    room[: len(rows)] = distance
    forced = np.full(shape[0], -1, np.int32)
    forced[: len(rows)] = [next(iter(row)) if len(row) == 1 else -1 for row in rows]
    return Automaton(*(jnp.asarray(table) for table in (transitions, adds, room, forced, class_of_token)))


def _round_up(size: int) -> int:
    """To a power of two, so that other sessions, with other languages, seldom need another compiled program."""
    return 1 << (size - 1).bit_length()
