"""The one batch format: a shared prefix [P] once, then rows [B, S] that each hold several examples, with their target positions [B, T].

Which examples make up step t depends on (seed, t) alone. How they are laid out (rows, micro-batches, devices) changes
nothing but rounding: the loss is a sum over target tokens divided by their number, and no example sees another.

A CPU gets one long row per micro-batch, which leaves next to nothing empty, since its attention goes from example to
example. Other devices compute whole rows at once, and get rows as long as the longest example.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

import jax
import numpy as np
from jaxtyping import Float, Int

from kdjax.prompting import Example

ALIGN = 8  # row lengths and target budgets are multiples of this
ROW = (
    256  # tokens that a row has at least, and a single long row has a multiple of: each length is a program of its own
)
SPARE = 1.5  # targets that a row has room for, relative to what it holds on average


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Rows:
    """Examples one after the other in rows, behind a shared prefix; arrays may carry a leading device axis.

    `starts` says for each token where in the row its example begins, `ids` the example's number in the training set; for
    padding the row's length and -1. `positions[b, t]` is where in row b the label `labels[b, t]` is predicted from;
    `weights` is its share in the loss, 0 for padding. No example has more than `longest` tokens.
    """

    tokens: Int[np.ndarray, "*devices batch length"]
    starts: Int[np.ndarray, "*devices batch length"]
    ids: Int[np.ndarray, "*devices batch length"]
    positions: Int[np.ndarray, "*devices batch targets"]
    labels: Int[np.ndarray, "*devices batch targets"]
    weights: Float[np.ndarray, "*devices batch targets"]
    longest: int = field(metadata={"static": True})


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
    """How the examples of one domain are laid out: their common prefix, then rows in micro-batches of about `tokens` per device.

    Rows are `length` tokens long; where that is None, a micro-batch is one row, as long as it has to be. No example has
    more than `longest` tokens of its own; `density` is the room for targets that a row has for each of its tokens.
    """

    prefix: tuple[int, ...]
    longest: int
    density: float
    tokens: int
    length: int | None

    def targets(self, length: int) -> int:
        """How many a row of so many tokens has room for."""
        return align(round(self.density * length))


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


def plan_groups(examples: Sequence[Example], micro_batch_tokens: int, one_row: bool | None = None) -> dict[str, Group]:
    """Domain → how its examples are laid out, in micro-batches of about so many tokens (and one row at least).

    `one_row`: each micro-batch is a single row; None: on a CPU.
    """
    if one_row is None:
        one_row = jax.default_backend() == "cpu"
    return {
        domain: _plan_group(members, micro_batch_tokens, one_row) for domain, members in by_domain(examples).items()
    }


def _plan_group(examples: list[Example], micro_batch_tokens: int, one_row: bool) -> Group:
    prefix = common_prefix(examples)
    lengths = [len(own_tokens(example, len(prefix))) for example in examples]
    counts = [len(example.targets) for example in examples]
    length = align(max(max(lengths), min(ROW, sum(lengths))))
    density = max(max(counts) / length, SPARE * sum(counts) / sum(lengths))
    return Group(prefix, max(lengths), density, micro_batch_tokens, None if one_row else length)


def lay_out(
    examples: Sequence[Example],
    groups: dict[str, Group],
    devices: int,
    pad_id: int,
    ids: Sequence[int] | None = None,
) -> list[MicroBatch]:
    """Pack examples into as few rows as may be, and the rows into as few micro-batches.

    Rows gain a leading device axis; all micro-batches of a domain are of one shape, so that the last may hold rows of
    padding. The order is a function of the examples alone.
    """
    batches = []
    for domain in sorted({example.domain for example in examples}):
        group = groups[domain]
        members = [i for i, example in enumerate(examples) if example.domain == domain]
        length, packed = _pack(members, examples, group, devices)
        at_once = 1 if group.length is None else max(1, group.tokens // length)
        count = -(-len(packed) // (at_once * devices))
        per_device = -(-len(packed) // (count * devices))
        for start in range(0, len(packed), per_device * devices):
            chosen = packed[start : start + per_device * devices]
            rows = _rows(examples, chosen, group, (per_device * devices, length), pad_id, ids or range(len(examples)))
            rows = jax.tree.map(lambda array: array.reshape(devices, -1, *array.shape[1:]), rows)
            batches.append(MicroBatch(np.asarray(group.prefix, np.int32), rows, tuple(chain.from_iterable(chosen))))
    return batches


def _pack(members: list[int], examples: Sequence[Example], group: Group, devices: int) -> tuple[int, list[list[int]]]:
    """How long the rows are, and the members of each."""
    tokens = {i: len(own_tokens(examples[i], len(group.prefix))) for i in members}
    targets = {i: len(examples[i].targets) for i in members}
    if max(tokens.values()) > group.longest:  # attention would not reach back so far
        raise ValueError(f"an example has {max(tokens.values())} tokens, and its group was planned for {group.longest}")
    if group.length is None:
        batches = min(-(-sum(tokens.values()) // (group.tokens * devices)), -(-len(members) // devices))
        packed = spread(tokens, batches * devices)
        step = min(ROW, align(group.tokens))
        length = -(-largest(packed, tokens) // step) * step
        while group.targets(length) < largest(packed, targets):
            length += step
        return length, packed
    count = -(-sum(tokens.values()) // group.length)
    while True:
        packed = spread(tokens, count)
        if largest(packed, tokens) <= group.length and largest(packed, targets) <= group.targets(group.length):
            return group.length, packed
        count += 1


def spread(sizes: dict[int, int], count: int) -> list[list[int]]:
    """Longest first, each into the emptiest of so many rows: the sums come out nearly even."""
    packed: list[list[int]] = [[] for _ in range(count)]
    filled = [0] * count
    for i in sorted(sizes, key=lambda i: (-sizes[i], i)):
        row = filled.index(min(filled))
        packed[row].append(i)
        filled[row] += sizes[i]
    return packed


def largest(packed: list[list[int]], sizes: dict[int, int]) -> int:
    """The sum of sizes of the fullest row."""
    return max(sum(sizes[i] for i in members) for members in packed)


def _rows(
    examples: Sequence[Example],
    packed: list[list[int]],
    group: Group,
    shape: tuple[int, int],
    pad_id: int,
    ids: Sequence[int],
) -> Rows:
    size, length = shape
    tokens = np.full(shape, pad_id, np.int32)
    starts = np.full(shape, length, np.int32)
    numbers = np.full(shape, -1, np.int32)
    positions, labels = (np.zeros((size, group.targets(length)), np.int32) for _ in range(2))
    weights = np.zeros(labels.shape, np.float32)
    for row, members in enumerate(packed):
        token = target = 0
        for i in members:
            fed, wanted = own_tokens(examples[i], len(group.prefix)), examples[i].targets
            here, there = slice(token, token + len(fed)), slice(target, target + len(wanted))
            tokens[row, here], starts[row, here], numbers[row, here] = fed, token, ids[i]
            positions[row, there] = [token - len(group.prefix) + each.position for each in wanted]
            labels[row, there] = [each.token_id for each in wanted]
            weights[row, there] = [each.weight for each in wanted]
            token, target = here.stop, there.stop
    return Rows(tokens, starts, numbers, positions, labels, weights, group.longest)


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
