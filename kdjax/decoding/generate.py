"""Greedy generation on the device: prompts in a few lengths, what they all begin with read once, tokens that the automaton forces not waited for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Int

from kdjax.decoding.automaton import Automaton, compile_automaton, session_language
from kdjax.decoding.batches import PromptBatch, lay_out_prompts
from kdjax.prompting import Example
from kdjax.student import Student
from kdjax.training.batches import by_domain, common_prefix
from kdjax.training.placement import replicated


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
        self._read_prefix = jax.jit(self._prefix, out_shardings=replicated())
        self._run = jax.pmap(self._decode, in_axes=(None, None, None, 0, None, 0), out_axes=0)
        self.calls = 0  # of the model with new tokens, after the prompts, over all batches so far
        self.calls_saved = 0  # more there would have been, had forced tokens not gone along with others

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
        for batch in lay_out_prompts(prompts, shared, self._buckets, self._rows, self._devices, pad_id):
            start = self._start_states(batch, starts)
            prompt = (batch.tokens, batch.lengths)
            tokens, calls = self._run(adapter, self._student.base, prefixes.get(batch.domain), prompt, automaton, start)
            ids = np.asarray(tokens).reshape(-1, self._steps)[: len(batch.members)].tolist()
            completions = [self._completion(row) for row in ids]
            made = int(np.max(calls))
            self.calls += made
            self.calls_saved += max(len(one.token_ids) for one in completions) - 1 - made
            for member, completion in zip(batch.members, completions, strict=True):
                answers[member] = completion
            on_batch(len(batch.members))
        return answers

    def _compile(self, n_items: Sequence[int], constraint: Constraint) -> tuple[Automaton | None, list[int]]:
        if constraint.mode == "none":
            return None, [0] * len(n_items)
        languages = [session_language(constraint.mode, n, constraint.marker) for n in n_items]
        return compile_automaton(languages, self._student.tokenizer, self._student.config.vocab_size, self._steps)

    def _start_states(self, batch: PromptBatch, starts: list[int]) -> np.ndarray:
        """The automaton's start state of each row; -1 marks a row of padding, which is finished before it begins."""
        states = np.full(batch.lengths.size, -1, np.int32)
        states[: len(batch.members)] = [starts[member] for member in batch.members]
        return states.reshape(batch.lengths.shape)

    def _completion(self, ids: list[int]) -> Completion:
        tokenizer = self._student.tokenizer
        end = next((i for i, token in enumerate(ids) if token in tokenizer.eos_ids), None)
        kept = ids if end is None else ids[: end + 1]
        return Completion(tokenizer.decode(kept), tuple(kept), end is not None)

    def _prefix(self, adapter, base, tokens):
        return nnx.merge(self._student.graph, adapter, base).read_prefix(tokens)

    def _decode(self, adapter, base, prefix, prompt, automaton: Automaton | None, start):
        """[batch, steps] token ids, padded with the end-of-turn token, and how often the model was called after the prompts."""
        decoder = nnx.merge(self._student.graph, adapter, base)
        eos_ids = jnp.asarray(self._student.tokenizer.eos_ids)
        tokens, lengths = prompt
        batch = tokens.shape[0]
        lines = jnp.arange(batch)

        def write(answers: _Answers, token, where) -> _Answers:
            """Append a token to the rows that `where` names: for the model to read, and in the automaton."""
            at = jnp.where(where, answers.written, self._steps)  # beyond the end: dropped
            state, added = answers.state, answers.added
            if automaton is not None:
                state, added = (
                    jnp.where(where, new, old)
                    for new, old in zip(automaton.advance(state, added, token), (state, added), strict=True)
                )
            return _Answers(
                out=answers.out.at[lines, at].set(token, mode="drop"),
                written=answers.written + where,
                unread=answers.unread + where,
                state=state,
                added=added,
                done=answers.done | (where & jnp.isin(token, eos_ids)) | (answers.written + where >= self._steps),
            )

        def choose(hidden, answers: _Answers) -> _Answers:
            """The likeliest token of each row, and the one behind it if there is but one."""
            logits = jnp.matmul(hidden, decoder.head.T, preferred_element_type=jnp.float32)
            if automaton is not None:
                legal = automaton.legal(answers.state, answers.added, self._steps - 1 - answers.written)
                logits = jnp.where(legal, logits, -jnp.inf)
            answers = write(answers, jnp.argmax(logits, axis=-1).astype(jnp.int32), ~answers.done)
            if automaton is not None:
                forced = automaton.forced[answers.state]
                answers = write(answers, forced, ~answers.done & (forced >= 0))
            return answers

        def read(width: int, answers: _Answers, cache):
            """The rows' unread tokens, at most `width` each, through the model; a finished row reads its last one again."""
            count = jnp.clip(answers.unread, 1, width)
            at = jnp.clip((answers.written - count)[:, None] + jnp.arange(width), 0, self._steps - 1)
            return decoder.decode(jnp.take_along_axis(answers.out, at, axis=1), count, cache)

        def body(carry):
            calls, answers, cache = carry
            if automaton is None:
                hidden, cache = read(1, answers, cache)
            else:
                two = jnp.any((answers.unread > 1) & ~answers.done)
                hidden, cache = jax.lax.cond(two, partial(read, 2), partial(read, 1), answers, cache)
            answers = choose(hidden, replace(answers, unread=jnp.zeros_like(answers.unread)))
            return calls + 1, answers, cache

        none = jnp.zeros(batch, jnp.int32)
        out = jnp.full((batch, self._steps), eos_ids[0], jnp.int32)
        answers = _Answers(out, none, none, jnp.maximum(start, 0), none, start < 0)
        # One more than is ever written: two may be read where one is left.
        hidden, cache = decoder.prefill(tokens, lengths, prefix, self._steps + 1)
        carry = (none[0], choose(hidden, answers), cache)
        calls, answers, _ = jax.lax.while_loop(lambda carry: ~jnp.all(carry[1].done), body, carry)
        return answers.out, calls


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
