"""The one batch format: a shared prefix [P] once, then rows [B, S] that each hold several examples, with their target positions [B, T].

Which examples make up step t depends on (seed, t) alone. How they are laid out (rows, micro-batches, devices) changes
nothing but rounding: the loss is a sum over target tokens divided by their number, and no example sees another.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import jax
import numpy as np
from jaxtyping import Float, Int

from kdjax.prompting import Example

ALIGN = 8  # row lengths and target budgets are multiples of this
ROW = 256  # tokens that a row has at least, so that short examples leave little of it empty
SPARE = 1.5  # targets that a row has room for, relative to what it holds on average


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Rows:
    """Examples one after the other in rows, behind a shared prefix; arrays may carry a leading device axis.

    `starts` says for each token where in the row its example begins, `ids` the example's number in the training set; -1 and
    its own place for padding. `positions[b, t]` is where in row b the label `labels[b, t]` is predicted from (the token
    before it); `weights` is 1 for a target and 0 for padding.
    """

    tokens: Int[np.ndarray, "*devices batch length"]
    starts: Int[np.ndarray, "*devices batch length"]
    ids: Int[np.ndarray, "*devices batch length"]
    positions: Int[np.ndarray, "*devices batch targets"]
    labels: Int[np.ndarray, "*devices batch targets"]
    weights: Float[np.ndarray, "*devices batch targets"]


@dataclass(frozen=True)
class MicroBatch:
    """Rows that share a prefix. `members` names their examples by their place in the list that was laid out."""

    prefix: Int[np.ndarray, " prefix"]
    rows: Rows
    members: tuple[int, ...]

    @property
    def computed_tokens(self) -> int:
        """What all devices compute, padding included: each its rows, and the prefix once."""
        return self.rows.tokens.size + self.rows.tokens.shape[0] * len(self.prefix)


@dataclass(frozen=True)
class Group:
    """How the examples of one domain are laid out: their common prefix, and rows of `length` tokens with room for `targets`.

    A device computes at most `rows` of them at a time.
    """

    prefix: tuple[int, ...]
    length: int
    targets: int
    rows: int


def common_prefix(examples: Sequence[Example]) -> tuple[int, ...]:
    """The longest that all prompts share; each keeps at least one token of its own, from which its first target is predicted."""
    first, last = min(example.prompt_ids for example in examples), max(example.prompt_ids for example in examples)
    shared = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[: min(shared, min(len(example.prompt_ids) for example in examples) - 1)]


def by_domain(examples: Sequence[Example]) -> dict[str, list[Example]]:
    """The examples of each domain, in their order."""
    domains: dict[str, list[Example]] = {}
    for example in examples:
        domains.setdefault(example.domain, []).append(example)
    return domains


def own_tokens(example: Example, prefix: int) -> tuple[int, ...]:
    """The tokens fed behind the prefix. The last target is only predicted, never fed."""
    tokens = (example.prompt_ids + example.completion_ids)[prefix:]
    return tokens[:-1] if example.completion_ids else tokens


def plan_groups(examples: Sequence[Example], micro_batch_tokens: int) -> dict[str, Group]:
    """Domain → how its examples are laid out, in micro-batches of about so many tokens (and one row at least)."""
    return {domain: _plan_group(members, micro_batch_tokens) for domain, members in by_domain(examples).items()}


def _plan_group(examples: list[Example], micro_batch_tokens: int) -> Group:
    prefix = common_prefix(examples)
    lengths = [len(own_tokens(example, len(prefix))) for example in examples]
    counts = [len(example.completion_ids) for example in examples]
    length = align(max(max(lengths), min(ROW, sum(lengths))))
    targets = align(max(max(counts), round(SPARE * length * sum(counts) / sum(lengths))))
    return Group(prefix, length, targets, max(1, micro_batch_tokens // length))


def lay_out(
    examples: Sequence[Example],
    groups: dict[str, Group],
    devices: int,
    pad_id: int,
    ids: Sequence[int] | None = None,
) -> list[MicroBatch]:
    """Pack examples into rows, longest first, each into the first row with room, and the rows into as few micro-batches as may be.

    Rows gain a leading device axis; all micro-batches of a domain have equally many, so that the last may hold rows of
    padding. The order is a function of the examples alone.
    """
    batches = []
    for domain in sorted({example.domain for example in examples}):
        group = groups[domain]
        packed = _pack([i for i, example in enumerate(examples) if example.domain == domain], examples, group)
        count = -(-len(packed) // (group.rows * devices))
        per_device = -(-len(packed) // (count * devices))
        for start in range(0, len(packed), per_device * devices):
            chosen = packed[start : start + per_device * devices]
            rows = _rows(examples, chosen, group, per_device * devices, pad_id, ids or range(len(examples)))
            rows = jax.tree.map(lambda array: array.reshape(devices, -1, *array.shape[1:]), rows)
            batches.append(MicroBatch(np.asarray(group.prefix, np.int32), rows, tuple(chain.from_iterable(chosen))))
    return batches


def _pack(members: list[int], examples: Sequence[Example], group: Group) -> list[list[int]]:
    """First-fit decreasing: the members of each row."""
    size = {i: len(own_tokens(examples[i], len(group.prefix))) for i in members}
    packed: list[list[int]] = []
    room: list[list[int]] = []  # tokens and targets left in each row
    for i in sorted(members, key=lambda i: (-size[i], i)):
        targets = len(examples[i].completion_ids)
        row = next((n for n, (tokens, labels) in enumerate(room) if tokens >= size[i] and labels >= targets), len(room))
        if row == len(room):
            packed.append([])
            room.append([group.length, group.targets])
        packed[row].append(i)
        room[row][0] -= size[i]
        room[row][1] -= targets
    return packed


def _rows(
    examples: Sequence[Example], packed: list[list[int]], group: Group, size: int, pad_id: int, ids: Sequence[int]
) -> Rows:
    tokens = np.full((size, group.length), pad_id, np.int32)
    starts = np.tile(np.arange(group.length, dtype=np.int32), (size, 1))
    numbers = np.full((size, group.length), -1, np.int32)
    positions, labels = (np.zeros((size, group.targets), np.int32) for _ in range(2))
    weights = np.zeros((size, group.targets), np.float32)
    for row, members in enumerate(packed):
        token = target = 0
        for i in members:
            fed, completion = own_tokens(examples[i], len(group.prefix)), examples[i].completion_ids
            here, there = slice(token, token + len(fed)), slice(target, target + len(completion))
            tokens[row, here], starts[row, here], numbers[row, here] = fed, token, ids[i]
            token, target = here.stop, there.stop
            positions[row, there] = np.arange(token - len(completion), token)
            labels[row, there] = completion
            weights[row, there] = 1.0
    return Rows(tokens, starts, numbers, positions, labels, weights)


def batch_members(count: int, batch_size: int, seed: int, step: int) -> list[int]:
    """The examples of optimizer step `step`: a fresh permutation per epoch, cut in order; the last batch of an epoch may be smaller."""
    per_epoch = steps_per_epoch(count, batch_size)
    epoch, position = divmod(step, per_epoch)
    order = np.random.default_rng([seed, epoch]).permutation(count)
    return order[position * batch_size : (position + 1) * batch_size].tolist()


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Optimizer steps that see each of `count` examples once."""
    return -(-count // batch_size)


def align(length: int) -> int:
    """`length`, rounded up to a multiple of ALIGN."""
    return -(-length // ALIGN) * ALIGN
