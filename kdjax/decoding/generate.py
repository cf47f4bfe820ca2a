"""Greedy generation on the device: prompts in the training batch format, the prefix's keys and values computed once per batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from kdjax.decoding.automaton import Automaton, compile_automaton, session_language
from kdjax.prompting import Example
from kdjax.student import Student
from kdjax.training.batches import MicroBatch, lay_out, plan_groups


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

    Args:
        max_new_tokens: most tokens of an answer, the end-of-turn token included.
        rows_per_device: prompts decoded side by side on each device.
        buckets: how many prompt lengths are compiled for at most.
    """

    def __init__(self, student: Student, *, max_new_tokens: int, rows_per_device: int, buckets: int):
        self._student, self._steps, self._rows, self._buckets = student, max_new_tokens, rows_per_device, buckets
        self._devices = jax.local_device_count()
        self._run = jax.pmap(self._decode, in_axes=(None, None, None, 0, None, 0), out_axes=0)

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
        groups = plan_groups(prompts, self._buckets)
        answers: list[Completion | None] = [None] * len(prompts)
        for batch in lay_out(prompts, groups, self._rows, self._devices, self._student.tokenizer.eos_id):
            start = self._start_states(batch, starts)
            tokens = self._run(adapter, self._student.base, batch.prefix, batch.rows, automaton, start)
            for member, ids in zip(batch.members, np.asarray(tokens).reshape(-1, self._steps), strict=False):
                answers[member] = self._completion(ids.tolist())
            on_batch(len(batch.members))
        return answers

    def _compile(self, n_items: Sequence[int], constraint: Constraint) -> tuple[Automaton | None, list[int]]:
        if constraint.mode == "none":
            return None, [0] * len(n_items)
        languages = [session_language(constraint.mode, n, constraint.marker) for n in n_items]
        return compile_automaton(languages, self._student.tokenizer, self._student.config.vocab_size, self._steps)

    def _start_states(self, batch: MicroBatch, starts: list[int]) -> np.ndarray:
        """The automaton's start state of each row; -1 marks a row of padding, which is finished before it begins."""
        states = np.full(batch.rows.ids.size, -1, np.int32)
        states[: len(batch.members)] = [starts[member] for member in batch.members]
        return states.reshape(batch.rows.ids.shape)

    def _completion(self, ids: list[int]) -> Completion:
        tokenizer = self._student.tokenizer
        end = next((i for i, token in enumerate(ids) if token in tokenizer.eos_ids), None)
        kept = ids if end is None else ids[: end + 1]
        return Completion(tokenizer.decode(kept), tuple(kept), end is not None)

    def _decode(self, adapter, base, prefix, rows, automaton: Automaton | None, start):
        """[batch, steps] token ids, padded with the end-of-turn token."""
        decoder = nnx.merge(self._student.graph, adapter, base)
        eos_ids = jnp.asarray(self._student.tokenizer.eos_ids)

        def choose(hidden, step, state, added, done):
            logits = jnp.matmul(hidden, decoder.head.T, preferred_element_type=jnp.float32)
            if automaton is not None:
                logits = jnp.where(automaton.legal(state, added, self._steps - 1 - step), logits, -jnp.inf)
            token = jnp.where(done, eos_ids[0], jnp.argmax(logits, axis=-1)).astype(jnp.int32)
            if automaton is not None:
                state, added = automaton.advance(state, added, token)
            return token, state, added, done | jnp.isin(token, eos_ids)

        def unfinished(carry):
            step, *_, done = carry
            return (step < self._steps) & ~jnp.all(done)

        def body(carry):
            step, out, cache, state, added, done = carry
            hidden, cache = decoder.decode(out[:, step - 1], cache)
            token, state, added, done = choose(hidden, step, state, added, done)
            return step + 1, out.at[:, step].set(token), cache, state, added, done

        batch = rows.tokens.shape[0]
        hidden, cache = decoder.prefill(rows.tokens, rows.lengths, prefix, self._steps)
        token, state, added, done = choose(hidden, 0, jnp.maximum(start, 0), jnp.zeros(batch, jnp.int32), start < 0)
        out = jnp.full((batch, self._steps), eos_ids[0], jnp.int32).at[:, 0].set(token)
        carry = (jnp.ones((), jnp.int32), out, cache, state, added, done)
        return jax.lax.while_loop(unfinished, body, carry)[1]
