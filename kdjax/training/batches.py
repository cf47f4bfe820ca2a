"""The one batch format: a shared prefix [P] once, then rows [B, S] in a few length buckets, with their target positions [B, T].

Which examples make up step t depends on (seed, t) alone. How they are laid out (buckets, micro-batches, devices) changes
nothing but rounding: the loss is a sum over target tokens divided by their number.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Float, Int

from kdjax.prompting import Example

ALIGN = 8  # row lengths and target budgets are multiples of this


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Rows:
    """Right-padded examples behind a shared prefix; arrays may carry a leading device axis.

    `positions[b, t]` is where in row b the label `labels[b, t]` is predicted from (the token before it); `weights` is 1
    for a target and 0 for padding. `ids` are the examples' numbers in the training set, -1 for a row of padding.
    """

    tokens: Int[np.ndarray, "*devices batch length"]
    lengths: Int[np.ndarray, "*devices batch"]
    positions: Int[np.ndarray, "*devices batch targets"]
    labels: Int[np.ndarray, "*devices batch targets"]
    weights: Float[np.ndarray, "*devices batch targets"]
    ids: Int[np.ndarray, "*devices batch"]


@dataclass(frozen=True)
class MicroBatch:
    """Rows that share a prefix. `members` names the real rows, in order, by their place in the list that was planned."""

    prefix: Int[np.ndarray, " prefix"]
    rows: Rows
    members: tuple[int, ...]


@dataclass(frozen=True)
class Bucket:
    """A static shape of rows: at most `length` tokens and `targets` targets each."""

    length: int
    targets: int


@dataclass(frozen=True)
class Group:
    """All examples of one domain: their common prefix, and the buckets that the rest of each fits into."""

    prefix: tuple[int, ...]
    buckets: tuple[Bucket, ...]


def own_tokens(example: Example, prefix: int) -> tuple[int, ...]:
    """The tokens fed behind the prefix. The last target is only predicted, never fed."""
    tokens = (example.prompt_ids + example.completion_ids)[prefix:]
    return tokens[:-1] if example.completion_ids else tokens


def plan_groups(examples: Sequence[Example], buckets: int) -> dict[str, Group]:
    """Domain → its prefix and at most `buckets` buckets, chosen so that the padding over all examples is smallest.

    The prefix is the longest that all prompts of the domain share; each keeps at least one prompt token of its own, from
    which its first target is predicted.
    """
    domains: dict[str, list[Example]] = {}
    for example in examples:
        domains.setdefault(example.domain, []).append(example)
    return {domain: _plan_group(members, buckets) for domain, members in domains.items()}


def _plan_group(examples: list[Example], buckets: int) -> Group:
    first, last = min(example.prompt_ids for example in examples), max(example.prompt_ids for example in examples)
    shared = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    shared = min(shared, min(len(example.prompt_ids) for example in examples) - 1)
    lengths = [_align(len(own_tokens(example, shared))) for example in examples]
    chosen = []
    for edge in bucket_edges(lengths, buckets):
        targets = max(
            len(example.completion_ids) for example, length in zip(examples, lengths, strict=True) if length <= edge
        )
        chosen.append(Bucket(edge, _align(targets)))
    return Group(first[:shared], tuple(chosen))


def bucket_edges(lengths: Sequence[int], count: int) -> list[int]:
    """The at most `count` upper edges, ascending, that cover all lengths with the least total padding (dynamic programme)."""
    edges, frequency = np.unique(lengths, return_counts=True)
    seen = np.concatenate([[0], np.cumsum(frequency)])
    cost = [
        seen[1:] * edges
    ]  # cost[k][j]: padded tokens of all lengths <= edges[j] in k + 1 buckets, the last ending at j
    came_from = []
    for _ in range(min(count, len(edges)) - 1):
        step = np.array(
            [
                [cost[-1][i] + (seen[j + 1] - seen[i + 1]) * edges[j] if i < j else np.inf for i in range(len(edges))]
                for j in range(len(edges))
            ]
        )
        came_from.append(step.argmin(axis=1))
        cost.append(step.min(axis=1))
    level, last, chosen = int(np.argmin([c[-1] for c in cost])), len(edges) - 1, []
    for k in range(level, -1, -1):
        chosen.append(int(edges[last]))
        last = came_from[k - 1][last] if k else last
    return chosen[::-1]


def lay_out(
    examples: Sequence[Example],
    groups: dict[str, Group],
    rows_per_device: int,
    devices: int,
    pad_id: int,
    ids: Sequence[int] | None = None,
) -> list[MicroBatch]:
    """Cut examples into micro-batches of rows_per_device × devices rows, longest first, each in the smallest bucket that fits.

    Rows gain a leading device axis. Missing rows of the last micro-batch are padding. The order is a function of the
    examples alone.
    """
    batches = []
    for domain in sorted({example.domain for example in examples}):
        group = groups[domain]
        own = {
            i: own_tokens(example, len(group.prefix)) for i, example in enumerate(examples) if example.domain == domain
        }
        order = sorted(own, key=lambda i: (-len(own[i]), i))
        size = rows_per_device * devices
        for start in range(0, len(order), size):
            members = order[start : start + size]
            targets = max(len(examples[i].completion_ids) for i in members)
            bucket = next(b for b in group.buckets if b.length >= len(own[members[0]]) and b.targets >= targets)
            rows = _rows(
                [examples[i] for i in members],
                [own[i] for i in members],
                bucket,
                size,
                pad_id,
                [ids[i] if ids else i for i in members],
            )
            rows = jax.tree.map(lambda array: array.reshape(devices, rows_per_device, *array.shape[1:]), rows)
            batches.append(MicroBatch(np.asarray(group.prefix, np.int32), rows, tuple(members)))
    return batches


def _rows(
    examples: list[Example], own: list[tuple[int, ...]], bucket: Bucket, size: int, pad_id: int, ids: list[int]
) -> Rows:
    tokens = np.full((size, bucket.length), pad_id, np.int32)
    lengths = np.ones(size, np.int32)
    positions = np.zeros((size, bucket.targets), np.int32)
    labels = np.zeros((size, bucket.targets), np.int32)
    weights = np.zeros((size, bucket.targets), np.float32)
    numbers = np.full(size, -1, np.int32)
    for row, (example, fed, number) in enumerate(zip(examples, own, ids, strict=True)):
        count = len(example.completion_ids)
        tokens[row, : len(fed)] = fed
        lengths[row] = len(fed)
        positions[row, :count] = np.arange(len(fed) - count, len(fed))
        labels[row, :count] = example.completion_ids
        weights[row, :count] = 1.0
        numbers[row] = number
    return Rows(tokens, lengths, positions, labels, weights, numbers)


def batch_members(count: int, batch_size: int, seed: int, step: int) -> list[int]:
    """The examples of optimizer step `step`: a fresh permutation per epoch, cut in order; the last batch of an epoch may be smaller."""
    per_epoch = steps_per_epoch(count, batch_size)
    epoch, position = divmod(step, per_epoch)
    order = np.random.default_rng([seed, epoch]).permutation(count)
    return order[position * batch_size : (position + 1) * batch_size].tolist()


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Optimizer steps that see each of `count` examples once."""
    return -(-count // batch_size)


def _align(length: int) -> int:
    return -(-length // ALIGN) * ALIGN
