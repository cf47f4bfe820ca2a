"""Greedy generation on the device: prompts in a few lengths, what they all begin with read once, tokens that the automaton forces not waited for."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Int

from kdjax.decoding.automaton import Automaton, compile_automaton, session_language
from kdjax.decoding.batches import SHARE, Bucket, PromptBatch, lay_out_prompts
from kdjax.prompting import Example
from kdjax.student import Student
from kdjax.student.cache import Cache
from kdjax.training.batches import by_domain, common_prefix
from kdjax.training.placement import replicated

TWO = 3  # two tokens per row are read in one call if more than one row in so many has two


@dataclass(frozen=True)
class Completion:
    """A student's answer: its text without special tokens, its tokens (the end-of-turn token included), whether it ended by itself."""

    text: str
    token_ids: tuple[int, ...]
    finished: bool


@dataclass(frozen=True)
class Constraint:
    """What answers may look like: mode "none", "json" or "items"; with a marker, free text comes first."""

    mode: str = "items"
    marker: str = ""


class Generator:
    """Answers prompts with a student. Compiled programs are kept, so one generator serves all epochs.

    Each device has so many slots. A prompt that is read takes a free one, and leaves it when its answer is complete: the
    next prompts do not wait for the longest answer, and few calls of the model are spent on rows that are done.

    Args:
        max_new_tokens: most tokens of an answer, the end-of-turn token included.
        rows_per_device: slots, that is prompts answered side by side on each device.
        buckets: how many prompt lengths are compiled for at most.
    """

    def __init__(self, student: Student, *, max_new_tokens: int, rows_per_device: int, buckets: int):
        self._student, self._steps, self._rows, self._buckets = student, max_new_tokens, rows_per_device, buckets
        self._devices = jax.local_device_count()
        self._read_prefix = jax.jit(self._prefix, out_shardings=replicated())
        self._vacant = jax.pmap(self._empty, static_broadcasted_argnums=(1, 2))
        self._keep = jax.pmap(_Slots.keep)
        self._admit = jax.pmap(self._read, in_axes=(None, None, None, None, 0, 0), donate_argnums=5)
        self._advance = jax.pmap(self._decode, in_axes=(None, None, None, None, None, 0), donate_argnums=5)
        self.calls = 0  # of the model with new tokens, after the prompts, so far
        self.joined = 0  # tokens that needed no call of their own: forced ones, read together with the token before

    def __call__(
        self,
        adapter: dict,
        prompts: Sequence[Example],
        n_items: Sequence[int],
        constraint: Constraint,
        on_batch: Callable[[int], None] = lambda rows: None,
    ) -> list[Completion]:
        """One completion per prompt, in order, by the student's base with `adapter`. `n_items[i]` is the number of products of prompt i; `on_batch` hears how many are done more."""
        automaton, starts = self._compile(n_items, constraint)
        shared = {name: common_prefix(members) for name, members in by_domain(prompts).items()}
        prefixes = {
            name: self._read_prefix(adapter, self._student.base, np.asarray(tokens, np.int32))
            for name, tokens in shared.items()
            if tokens
        }
        answers: list[Completion | None] = [None] * len(prompts)
        pad_id = self._student.tokenizer.eos_id
        for bucket in lay_out_prompts(prompts, shared, self._buckets, self._rows, self._devices, pad_id):
            model = adapter, self._student.base, prefixes.get(bucket.domain), automaton
            for complete in self._answer(model, bucket, starts):
                for member, ids in complete:
                    answers[member] = self._completion(ids)
                on_batch(len(complete))
        return answers

    def _answer(self, model, bucket: Bucket, starts: list[int]) -> Iterator[list[tuple[int, list[int]]]]:
        """(member, token ids) of the answers that are complete, whenever there are some more."""
        held = np.full((self._devices, bucket.slots), -1)  # which prompt is in each slot
        slots = self._vacant(np.arange(self._devices), bucket.slots, bucket.length)
        waiting = deque(bucket.batches)
        while waiting or (held >= 0).any():
            while waiting and all(map(_fits, held, waiting[0].members)):
                batch = waiting.popleft()
                slots = self._admit(*model, self._seat(batch, held, starts), slots)
            few, free = bucket.slots // SHARE, held.shape[1]
            if waiting:
                free = max(map(len, waiting[0].members))
            elif few and free == bucket.slots:
                free -= few
                if np.count_nonzero(held >= 0, axis=1).max() <= few:  # the last ones go on by themselves
                    rows = np.argsort(held < 0, axis=1, kind="stable")[:, :few]
                    slots, held, free = self._keep(slots, rows), np.take_along_axis(held, rows, axis=1), few
            calls, joined, slots = self._advance(*model, np.int32(free), slots)
            self.calls += int(np.max(calls))
            self.joined += int(np.sum(joined))
            out, complete = np.asarray(slots.answers.out), np.asarray(slots.answers.done) & (held >= 0)
            yield list(zip(held[complete].tolist(), out[complete].tolist(), strict=True))
            held[complete] = -1

    def _seat(self, batch: PromptBatch, held: np.ndarray, starts: list[int]) -> "_Arrivals":
        """Give each prompt of a batch a free slot, which is noted in `held`."""
        at, state = np.zeros_like(batch.first), np.zeros_like(batch.first)
        for device, members in enumerate(batch.members):
            free = np.flatnonzero(held[device] < 0)[: len(members)]
            held[device, free] = members
            at[device, : len(members)] = free
            state[device, : len(members)] = [starts[member] for member in members]
        return _Arrivals(batch.tokens, batch.starts, batch.first, batch.lengths, at, state)

    def _compile(self, n_items: Sequence[int], constraint: Constraint) -> tuple[Automaton | None, list[int]]:
        if constraint.mode == "none":
            return None, [0] * len(n_items)
        languages = [session_language(constraint.mode, n, constraint.marker) for n in n_items]
        return compile_automaton(languages, self._student.tokenizer, self._student.config.vocab_size, self._steps)

    def _completion(self, ids: list[int]) -> Completion:
        tokenizer = self._student.tokenizer
        end = next((i for i, token in enumerate(ids) if token in tokenizer.eos_ids), None)
        kept = ids if end is None else ids[: end + 1]
        return Completion(tokenizer.decode(kept), tuple(kept), end is not None)

    def _prefix(self, adapter, base, tokens):
        return nnx.merge(self._student.graph, adapter, base).read_prefix(tokens)

    def _empty(self, _, rows: int, length: int) -> "_Slots":
        config, eos = self._student.config, self._student.tokenizer.eos_ids[0]
        none = jnp.zeros(rows, jnp.int32)
        answers = _Answers(jnp.full((rows, self._steps), eos), none, none, none, none, none == 0)
        # One more than is ever written: two may be read where one is left.
        cache = Cache.empty(config, rows, length, self._steps + 1, self._student.base["norm"]["weight"].dtype)
        return _Slots(answers, cache)

    def _read(self, adapter, base, prefix, automaton: Automaton | None, new: "_Arrivals", slots: "_Slots") -> "_Slots":
        """Read prompts into free slots, and choose the first tokens of their answers."""
        decoder = nnx.merge(self._student.graph, adapter, base)
        rows, room = slots.answers.done.size, slots.cache.prompt[0].shape[4]
        last = new.first + jnp.maximum(new.lengths, 1) - 1
        hidden, prompts = decoder.prefill(new.tokens, last, prefix, new.starts, room)
        at = jnp.where(new.lengths > 0, new.slots, rows)  # beyond the end: dropped

        def put(old, fresh):
            return old.at[at].set(fresh, mode="drop")

        answers = replace(
            slots.answers,
            out=put(slots.answers.out, self._student.tokenizer.eos_ids[0]),
            **{name: put(getattr(slots.answers, name), 0) for name in ("written", "unread", "added")},
            done=put(slots.answers.done, False),
            state=put(slots.answers.state, new.state),
        )
        arrived = put(jnp.zeros(rows, bool), True)
        hidden = put(jnp.zeros((rows, hidden.shape[-1]), hidden.dtype), hidden)
        cache = slots.cache.admit(prompts, new.first, new.lengths, new.slots)
        return _Slots(self._choose(decoder, automaton, hidden, answers, arrived), cache)

    def _decode(self, adapter, base, prefix, automaton: Automaton | None, wanted, slots: "_Slots"):
        """Go on until `wanted` slots are free. Returns the model's calls, the tokens that needed none of their own, and the slots."""
        decoder = nnx.merge(self._student.graph, adapter, base)

        def read(width: int, answers: _Answers, cache: Cache):
            """The rows' unread tokens, at most `width` each; a row that is done reads something that nobody looks at."""
            count = jnp.clip(answers.unread, 1, width)
            at = jnp.clip((answers.written - answers.unread)[:, None] + jnp.arange(width), 0, self._steps - 1)
            hidden, cache = decoder.decode(jnp.take_along_axis(answers.out, at, axis=1), count, cache)
            return hidden, cache, count

        def body(carry):
            calls, joined, answers, cache = carry
            going = ~answers.done
            if automaton is None:
                hidden, cache, count = read(1, answers, cache)
            else:  # a call with two tokens per row costs about half as much again as one with one
                two = TWO * jnp.sum(going & (answers.unread > 1)) > jnp.sum(going)
                hidden, cache, count = jax.lax.cond(two, partial(read, 2), partial(read, 1), answers, cache)
            answers = replace(answers, unread=jnp.maximum(answers.unread - count, 0))
            joined += jnp.sum(going * (count - 1))
            answers = self._choose(decoder, automaton, hidden, answers, going & (answers.unread == 0))
            return calls + 1, joined, answers, cache

        def goes_on(carry):
            done = carry[2].done
            return ~jnp.all(done) & (jnp.sum(done) < wanted)

        carry = (jnp.int32(0), jnp.int32(0), slots.answers, replace(slots.cache, prefix=prefix))
        calls, joined, answers, cache = jax.lax.while_loop(goes_on, body, carry)
        return calls, joined, _Slots(answers, replace(cache, prefix=None))

    def _choose(self, decoder, automaton: Automaton | None, hidden, answers: "_Answers", rows) -> "_Answers":
        """The likeliest next token of the `rows` [batch] named, and the one behind it if there is but one."""
        logits = jnp.matmul(hidden, decoder.head.T, preferred_element_type=jnp.float32)
        if automaton is not None:
            legal = automaton.legal(answers.state, answers.added, self._steps - 1 - answers.written)
            logits = jnp.where(legal, logits, -jnp.inf)
        answers = self._write(automaton, answers, jnp.argmax(logits, axis=-1).astype(jnp.int32), rows)
        if automaton is not None:
            forced = automaton.forced[answers.state]
            answers = self._write(automaton, answers, forced, rows & ~answers.done & (forced >= 0))
        return answers

    def _write(self, automaton: Automaton | None, answers: "_Answers", token, rows) -> "_Answers":
        """Append a token to the `rows` named: for the model to read, and in the automaton."""
        at = jnp.where(rows, answers.written, self._steps)  # beyond the end: dropped
        state, added = answers.state, answers.added
        if automaton is not None:
            state, added = (
                jnp.where(rows, new, old)
                for new, old in zip(automaton.advance(state, added, token), (state, added), strict=True)
            )
        ended = jnp.isin(token, jnp.asarray(self._student.tokenizer.eos_ids))
        written = answers.written + rows
        return _Answers(
            out=answers.out.at[jnp.arange(rows.size), at].set(token, mode="drop"),
            written=written,
            unread=answers.unread + rows,
            state=state,
            added=added,
            done=answers.done | (rows & (ended | (written >= self._steps))),
        )


def _fits(held: np.ndarray, members: Sequence[int]) -> bool:
    return np.count_nonzero(held < 0) >= len(members)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Arrivals:
    """Prompts to be read: a batch (see PromptBatch), the slot that each gets, and the automaton's start state of each."""

    tokens: Int[Array, "rows length"]
    starts: Int[Array, "rows length"]
    first: Int[Array, " n"]
    lengths: Int[Array, " n"]
    slots: Int[Array, " n"]
    state: Int[Array, " n"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Answers:
    """What was written so far: out [batch, steps], of which row b has the first written[b]; the model has yet to read the last unread[b] of them."""

    out: Int[Array, "batch steps"]
    written: Int[Array, " batch"]
    unread: Int[Array, " batch"]
    state: Int[Array, " batch"]
    added: Int[Array, " batch"]
    done: Bool[Array, " batch"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Slots:
    """The rows of a device: their answers so far, and what the model remembers."""

    answers: _Answers
    cache: Cache

    def keep(self, rows: Int[Array, " n"]) -> "_Slots":
        """These rows alone."""
        return _Slots(jax.tree.map(lambda part: part[rows], self.answers), self.cache.keep(rows))
