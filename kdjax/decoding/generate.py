"""Greedy generation on the device: prompts in a few lengths, what they all begin with read once, tokens that the
automaton forces not waited for."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from kdjax.decoding.automaton import Automaton, Language, compile_automaton, session_language
from kdjax.decoding.batches import SHARE, Bucket, PromptBatch, lay_out_prompts
from kdjax.decoding.slots import Arrivals, Programs, Slots
from kdjax.prompting import Example
from kdjax.student import Student
from kdjax.training.batches import by_domain, common_prefix
from kdjax.training.parallel import Parallel


@dataclass(frozen=True)
class Completion:
    """A student's answer: its text without special tokens, its tokens (the end-of-turn token included), whether it ended by itself, and
    whether the automaton had to forbid what the student would have written.

    A student that judges pairs has no tokens, but the log-odds of the pairs (0, 1), (0, 2), …, (1, 2), … of products.
    """

    text: str
    token_ids: tuple[int, ...]
    finished: bool
    rescued: bool = False
    pair_log_odds: tuple[float, ...] = ()


@dataclass(frozen=True)
class Constraint:
    """What answers may look like: mode "none", "json" or "items"; with a marker, free text comes first.

    `padding` is what the chat template writes before and after an answer.
    """

    mode: str = "items"
    marker: str = ""
    padding: tuple[str, str] = ("", "")

    def language(self, n_items: int) -> Language:
        """The answers to a session of `n_items` products; there is none for the mode "none"."""
        return session_language(self.mode, n_items, self.marker, self.padding)


class Generator:
    """Answers prompts with a student. Compiled programs are kept, so one generator serves all epochs.

    Each device has so many slots. A prompt that is read takes a free one, and leaves it when its answer is complete: the
    next prompts do not wait for the longest answer, and few calls of the model are spent on rows that are done.

    Args:
        max_new_tokens: most tokens of an answer, the end-of-turn token included.
        rows_per_device: slots, that is prompts answered side by side on each device of this process.
        buckets: how many prompt lengths are compiled for at most.
    """

    def __init__(
        self,
        student: Student,
        *,
        max_new_tokens: int,
        rows_per_device: int,
        buckets: int,
        parallel: Parallel | None = None,
    ):
        parallel = parallel or Parallel()
        self._student, self._steps, self._rows, self._buckets = student, max_new_tokens, rows_per_device, buckets
        self._devices, self._one_row = parallel.shares, parallel.long_rows
        dtype, eos_ids = student.base["norm"]["weight"].dtype, tuple(student.tokenizer.eos_ids)
        programs = Programs(student.graph, student.config, dtype, max_new_tokens, eos_ids)
        self._read_prefix = parallel.once(programs.read_prefix)
        self._vacant = cache(lambda *size: parallel.spread(lambda _: programs.vacant(*size), (0,)))
        self._admit = parallel.spread(programs.admit, (None, None, None, None, 0, 0), donate_argnums=5)
        self._advance = parallel.spread(programs.advance, (None, None, None, None, None, 0), donate_argnums=5)
        self._keep = parallel.spread(Slots.keep, (0, 0))
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
        """One completion per prompt, in order, by the student's base with `adapter`. `n_items[i]` is the number of
        products of prompt i; `on_batch` hears how many are done more."""
        automaton, starts = self._compile(n_items, constraint)
        shared = {name: common_prefix(members) for name, members in by_domain(prompts).items()}
        prefixes = {
            name: self._read_prefix(adapter, self._student.base, np.asarray(tokens, np.int32))
            for name, tokens in shared.items()
            if tokens
        }
        answers: dict[int, Completion] = {}
        pad_id = self._student.tokenizer.eos_id
        buckets = lay_out_prompts(
            prompts, shared, self._buckets, self._rows, self._devices, pad_id, one_row=self._one_row
        )
        for bucket in buckets:
            model = adapter, self._student.base, prefixes.get(bucket.domain), automaton
            for complete in self._answer(model, bucket, starts):
                for member, ids, rescued in complete:
                    answers[member] = self._completion(ids, rescued)
                on_batch(len(complete))
        return [answers[member] for member in range(len(prompts))]

    def _answer(self, model, bucket: Bucket, starts: list[int]) -> Iterator[list[tuple[int, list[int], bool]]]:
        """(member, token ids, rescued) of the answers that are complete, whenever there are some more."""
        held = np.full((self._devices, bucket.slots), -1)  # which prompt is in each slot
        slots = self._vacant(bucket.slots, bucket.length)(np.arange(self._devices))
        waiting = deque(bucket.batches)
        while waiting or (held >= 0).any():
            while waiting and all(map(_fits, held, waiting[0].members)):
                batch = waiting.popleft()
                slots = self._admit(*model, self._seat(batch, held, starts), slots)
            if waiting:
                wanted = max(map(len, waiting[0].members))
            else:
                slots, held, wanted = self._last(slots, held, bucket.slots)
            calls, joined, slots = self._advance(*model, np.int32(wanted), slots)
            self.calls += int(np.max(calls))
            self.joined += int(np.sum(joined))
            out, complete = np.asarray(slots.answers.out), np.asarray(slots.answers.done) & (held >= 0)
            rescued = np.asarray(slots.answers.rescued)
            told = (held[complete].tolist(), out[complete].tolist(), rescued[complete].tolist())
            yield list(zip(*told, strict=True))
            held[complete] = -1

    def _last(self, slots: Slots, held: np.ndarray, size: int) -> tuple[Slots, np.ndarray, int]:
        """Nobody waits any more. The last few answers go on in slots of their own, since a call costs by the slot.

        Returns the slots, what they hold, and how many have to be free before there is something to do again.
        """
        few = size // SHARE
        if not few or held.shape[1] == few:
            return slots, held, held.shape[1]
        if np.count_nonzero(held >= 0, axis=1).max() > few:
            return slots, held, size - few
        rows = np.argsort(held < 0, axis=1, kind="stable")[:, :few]
        return self._keep(slots, rows), np.take_along_axis(held, rows, axis=1), few

    def _seat(self, batch: PromptBatch, held: np.ndarray, starts: list[int]) -> Arrivals:
        """Give each prompt of a batch a free slot, which is noted in `held`."""
        at, state = np.zeros_like(batch.first), np.zeros_like(batch.first)
        for device, members in enumerate(batch.members):
            free = np.flatnonzero(held[device] < 0)[: len(members)]
            held[device, free] = members
            at[device, : len(members)] = free
            state[device, : len(members)] = [starts[member] for member in members]
        return Arrivals(batch.tokens, batch.starts, batch.first, batch.lengths, at, state)

    def _compile(self, n_items: Sequence[int], constraint: Constraint) -> tuple[Automaton | None, list[int]]:
        if constraint.mode == "none":
            return None, [0] * len(n_items)
        languages = [constraint.language(n) for n in n_items]
        return compile_automaton(languages, self._student.tokenizer, self._student.config.vocab_size, self._steps)

    def _completion(self, ids: list[int], rescued: bool) -> Completion:
        tokenizer = self._student.tokenizer
        end = next((i for i, token in enumerate(ids) if token in tokenizer.eos_ids), None)
        kept = ids if end is None else ids[: end + 1]
        return Completion(tokenizer.decode(kept), tuple(kept), end is not None, rescued)


def _fits(held: np.ndarray, members: Sequence[int]) -> bool:
    return int(np.count_nonzero(held < 0)) >= len(members)
