"""The one batch format: a shared prefix [P] once, then rows [B, S] that each hold several examples, with what is asked of them.

Which examples make up step t depends on (seed, t) alone. How they are laid out (rows, micro-batches, devices) changes
nothing but rounding: the loss is a sum over target tokens divided by their number, and no example sees another.

A CPU gets one long row per micro-batch, which leaves next to nothing empty, since its attention goes from example to
example. Other devices compute whole rows at once, and get rows as long as the longest example.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import jax
import numpy as np
from jaxtyping import Int

from kdjax.prompting import Example
from kdjax.training.rows import Packing, ProductRows, Rows

ALIGN = 8  # row lengths and target budgets are multiples of this
ROW = (
    256  # tokens that a row has at least, and a single long row has a multiple of: each length is a program of its own
)
SPARE = 1.5  # of what is asked: the room of a row, relative to what it holds on average
Kind = type[Rows | ProductRows]


@dataclass(frozen=True)
class MicroBatch:
    """Rows that share a prefix. `members` names their examples by their place in the list that was laid out."""

    prefix: Int[np.ndarray, " prefix"]
    rows: Rows | ProductRows
    members: tuple[int, ...]

    @property
    def computed_tokens(self) -> int:
        """What all devices compute, padding included: each its rows, and the prefix once."""
        return self.rows.tokens.size + self.rows.tokens.shape[0] * len(self.prefix)


@dataclass(frozen=True)
class Group:
    """How the examples of one domain are laid out: their common prefix, then rows in micro-batches of about `tokens` per device.

    Rows are `length` tokens long; where that is None, a micro-batch is one row, as long as it has to be. No example has
    more than `longest` tokens of its own; `densities` is the room that a row of this `kind` has, for each of its tokens, for what
    is asked.
    """

    prefix: tuple[int, ...]
    longest: int
    densities: tuple[float, ...]
    tokens: int
    length: int | None
    kind: Kind = Rows

    def budgets(self, length: int) -> tuple[int, ...]:
        """How much a row of so many tokens has room for, of all that its kind counts."""
        return tuple(align(round(density * length)) for density in self.densities)

    def fed(self, example: Example) -> tuple[int, ...]:
        """The example's own tokens."""
        return self.kind.fed(example, len(self.prefix))


def common_prefix(examples: Sequence[Example]) -> tuple[int, ...]:
    """The longest that all prompts share, up to their products; each keeps at least one token of its own, from which
    its first target is predicted."""
    first, last = min(example.prompt_ids for example in examples), max(example.prompt_ids for example in examples)
    shared = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    bounds = (example.products[0][0][0] if example.products else len(example.prompt_ids) - 1 for example in examples)
    return first[: min(shared, *bounds)]


def by_domain(examples: Sequence[Example]) -> dict[str, list[Example]]:
    """The examples of each domain, in their order."""
    domains: dict[str, list[Example]] = {}
    for example in examples:
        domains.setdefault(example.domain, []).append(example)
    return domains


def plan_groups(
    examples: Sequence[Example], micro_batch_tokens: int, one_row: bool, kind: Kind = Rows
) -> dict[str, Group]:
    """Domain → how its examples are laid out, in micro-batches of about so many tokens (and one row at least).

    `one_row`: each micro-batch is a single row, see `Parallel.long_rows`.
    """
    return {
        domain: _plan_group(members, micro_batch_tokens, one_row, kind)
        for domain, members in by_domain(examples).items()
    }


def _plan_group(examples: list[Example], micro_batch_tokens: int, one_row: bool, kind: Kind) -> Group:
    prefix = common_prefix(examples)
    lengths = [len(kind.fed(example, len(prefix))) for example in examples]
    length = align(max(max(lengths), min(ROW, sum(lengths))))
    densities = tuple(
        max(max(counts) / length, SPARE * sum(counts) / sum(lengths))
        for counts in zip(*map(kind.counts, examples), strict=True)
    )
    return Group(prefix, max(lengths), densities, micro_batch_tokens, None if one_row else length, kind)


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
            shape = per_device * devices, length
            packing = Packing(
                examples,
                chosen,
                ids or range(len(examples)),
                len(group.prefix),
                shape,
                group.budgets(length),
                group.longest,
                pad_id,
            )
            rows = group.kind.filled(packing)
            rows = jax.tree.map(lambda array: array.reshape(devices, -1, *array.shape[1:]), rows)
            batches.append(MicroBatch(np.asarray(group.prefix, np.int32), rows, tuple(chain.from_iterable(chosen))))
    return batches


def _pack(members: list[int], examples: Sequence[Example], group: Group, devices: int) -> tuple[int, list[list[int]]]:
    """How long the rows are, and the members of each."""
    tokens = {i: len(group.fed(examples[i])) for i in members}
    counts = [
        dict(zip(members, asked, strict=True))
        for asked in zip(*(group.kind.counts(examples[i]) for i in members), strict=True)
    ]

    def has_room(length: int, packed: list[list[int]]) -> bool:
        asked = (largest(packed, sizes) for sizes in counts)
        return all(most <= budget for most, budget in zip(asked, group.budgets(length), strict=True))

    if max(tokens.values()) > group.longest:  # attention would not reach back so far
        raise ValueError(f"an example has {max(tokens.values())} tokens, and its group was planned for {group.longest}")
    if group.length is None:
        batches = min(-(-sum(tokens.values()) // (group.tokens * devices)), -(-len(members) // devices))
        packed = spread(tokens, batches * devices)
        step = min(ROW, align(group.tokens))
        length = -(-largest(packed, tokens) // step) * step
        while not has_room(length, packed):
            length += step
        return length, packed
    count = -(-sum(tokens.values()) // group.length)
    while True:
        packed = spread(tokens, count)
        if largest(packed, tokens) <= group.length and has_room(group.length, packed):
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
