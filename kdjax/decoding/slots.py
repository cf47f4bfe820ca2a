"""The device's side of generation: slots that prompts are read into and answers are written in."""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Int

from kdjax.decoding.automaton import Automaton
from kdjax.student.arrays import AnyArray
from kdjax.student.cache import KV, Cache
from kdjax.student.families import DecoderConfig

TWO = 3  # two tokens per row are read in one call if more than one row in so many has two


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Arrivals:
    """Prompts to be read: a batch (see PromptBatch), the slot that each gets, and the automaton's start state of each."""

    tokens: Int[AnyArray, "rows length"]
    starts: Int[AnyArray, "rows length"]
    first: Int[AnyArray, " n"]
    lengths: Int[AnyArray, " n"]
    slots: Int[AnyArray, " n"]
    state: Int[AnyArray, " n"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Answers:
    """What was written so far: out [batch, steps], of which row b has the first written[b]; the model has yet to read
    the last unread[b] of them.

    A row was `rescued` if the automaton forbade what the model would have written.
    """

    out: Int[Array, "batch steps"]
    written: Int[Array, " batch"]
    unread: Int[Array, " batch"]
    state: Int[Array, " batch"]
    added: Int[Array, " batch"]
    done: Bool[Array, " batch"]
    rescued: Bool[Array, " batch"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Slots:
    """The rows of a device: their answers so far, and what the model remembers."""

    answers: Answers
    cache: Cache

    def keep(self, rows: Int[Array, " n"]) -> "Slots":
        """These rows alone."""
        return Slots(jax.tree.map(lambda part: part[rows], self.answers), self.cache.keep(rows))


@dataclass(frozen=True)
class Programs:
    """What runs on a device. Answers have at most `steps` tokens and end with one of `eos_ids`, greedily chosen."""

    graph: nnx.GraphDef
    config: DecoderConfig
    dtype: jnp.dtype
    steps: int
    eos_ids: tuple[int, ...]

    def read_prefix(self, adapter, base, tokens: Int[Array, " prefix"]) -> KV:
        """Keys and values of what all prompts begin with."""
        return nnx.merge(self.graph, adapter, base).read_prefix(tokens)

    def vacant(self, rows: int, length: int) -> Slots:
        """So many free slots for prompts of at most `length` tokens."""
        none = jnp.zeros(rows, jnp.int32)
        answers = Answers(jnp.full((rows, self.steps), self.eos_ids[0]), none, none, none, none, none == 0, none != 0)
        # One more than is ever written: two may be read where one is left.
        cache = Cache.empty(self.config, rows, length, self.steps + 1, self.dtype)
        return Slots(answers, cache)

    def admit(
        self, adapter, base, prefix: KV | None, automaton: Automaton | None, new: Arrivals, slots: Slots
    ) -> Slots:
        """Read prompts into free slots, and choose the first tokens of their answers."""
        decoder = nnx.merge(self.graph, adapter, base)
        rows, room = slots.answers.done.size, slots.cache.prompt[0].shape[4]
        last = new.first + jnp.maximum(new.lengths, 1) - 1
        hidden, prompts = decoder.prefill(new.tokens, last, prefix, new.starts, room)
        at = jnp.where(new.lengths > 0, new.slots, rows)  # beyond the end: dropped

        def put(old, fresh):
            return old.at[at].set(fresh, mode="drop")

        answers = replace(
            slots.answers,
            out=put(slots.answers.out, self.eos_ids[0]),
            **{name: put(getattr(slots.answers, name), 0) for name in ("written", "unread", "added")},
            done=put(slots.answers.done, False),
            rescued=put(slots.answers.rescued, False),
            state=put(slots.answers.state, new.state),
        )
        arrived = put(jnp.zeros(rows, bool), True)
        hidden = put(jnp.zeros((rows, hidden.shape[-1]), hidden.dtype), hidden)
        cache = slots.cache.admit(prompts, new.first, new.lengths, new.slots)
        return Slots(self._choose(decoder, automaton, hidden, answers, arrived), cache)

    def advance(
        self, adapter, base, prefix: KV | None, automaton: Automaton | None, wanted: Int[Array, ""], slots: Slots
    ) -> tuple[Int[Array, ""], Int[Array, ""], Slots]:
        """Write on until `wanted` slots are free, or all. Returns the model's calls, the tokens that needed none of
        their own, and the slots."""
        decoder = nnx.merge(self.graph, adapter, base)
        widest = 1 if automaton is None else 2

        def read(width: int, answers: Answers, cache: Cache):
            """The rows' unread tokens, at most `width` each; a row that is done reads something that nobody looks at."""
            count = jnp.clip(answers.unread, 1, width)
            at = jnp.clip((answers.written - answers.unread)[:, None] + jnp.arange(width), 0, self.steps - 1)
            hidden, new = decoder.decode(jnp.take_along_axis(answers.out, at, axis=1), count, cache)
            rest = ((0, 0),) * 3 + ((0, widest - width), (0, 0))
            return hidden, count, tuple(jnp.pad(part, rest) for part in new)

        def body(carry):
            calls, joined, answers, cache = carry
            going = ~answers.done
            if automaton is None:
                hidden, count, new = read(1, answers, cache)
            else:  # a call with two tokens per row costs about half as much again as one with one
                two = TWO * jnp.sum(going & (answers.unread > 1)) > jnp.sum(going)
                hidden, count, new = jax.lax.cond(two, partial(read, 2), partial(read, 1), answers, cache)
            answers = replace(answers, unread=jnp.maximum(answers.unread - count, 0))
            joined += jnp.sum(jnp.where(going, count - 1, 0))
            answers = self._choose(decoder, automaton, hidden, answers, going & (answers.unread == 0))
            return calls + 1, joined, answers, cache.extend(new, count)  # outside of cond, which would copy it

        def goes_on(carry):
            done = carry[2].done
            return ~jnp.all(done) & (jnp.sum(done) < wanted)

        carry = (jnp.int32(0), jnp.int32(0), slots.answers, replace(slots.cache, prefix=prefix))
        calls, joined, answers, cache = jax.lax.while_loop(goes_on, body, carry)
        return calls, joined, Slots(answers, replace(cache, prefix=None))

    def _choose(self, decoder, automaton: Automaton | None, hidden, answers: Answers, rows) -> Answers:
        """The likeliest next token of the `rows` [batch] named, and the one behind it if there is but one."""
        logits = jnp.matmul(hidden, decoder.head.T, preferred_element_type=jnp.float32)
        if automaton is not None:
            legal = automaton.legal(answers.state, answers.added, self.steps - 1 - answers.written)
            wanted = jnp.argmax(logits, axis=-1)
            forbidden = ~jnp.take_along_axis(legal, wanted[:, None], axis=-1)[:, 0]
            answers = replace(answers, rescued=answers.rescued | (rows & forbidden))
            logits = jnp.where(legal, logits, -jnp.inf)
        answers = self._write(automaton, answers, jnp.argmax(logits, axis=-1).astype(jnp.int32), rows)
        if automaton is not None:
            forced = automaton.forced[answers.state]
            answers = self._write(automaton, answers, forced, rows & ~answers.done & (forced >= 0))
        return answers

    def _write(self, automaton: Automaton | None, answers: Answers, token, rows) -> Answers:
        """Append a token to the `rows` named: for the model to read, and in the automaton."""
        at = jnp.where(rows, answers.written, self.steps)  # beyond the end: dropped
        state, added = answers.state, answers.added
        if automaton is not None:
            state, added = (
                jnp.where(rows, new, old)
                for new, old in zip(automaton.advance(state, added, token), (state, added), strict=True)
            )
        ended = jnp.isin(token, jnp.asarray(self.eos_ids))
        one = rows.astype(jnp.int32)
        written = answers.written + one
        return Answers(
            out=answers.out.at[jnp.arange(rows.size), at].set(token, mode="drop"),
            written=written,
            unread=answers.unread + one,
            state=state,
            added=added,
            done=answers.done | (rows & (ended | (written >= self.steps))),
            rescued=answers.rescued,
        )
