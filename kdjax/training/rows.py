"""What a device gets: rows [B, S] that hold several examples one after the other, and what is asked of them.

Each kind of rows says which of an example's tokens it feeds, how much it asks of an example, and how it is filled.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

import jax
import numpy as np
from jaxtyping import Float, Int

from kdjax.evaluation import share_a_bundle
from kdjax.prompting import Example

STATIC = {"static": True}


@dataclass(frozen=True)
class Packing:
    """How rows of one shape are filled: `packed[row]` names its examples, `budgets` is the room of a row for what `counts` counts."""

    examples: Sequence[Example]
    packed: Sequence[Sequence[int]]
    ids: Sequence[int]
    prefix: int
    shape: tuple[int, int]
    budgets: tuple[int, ...]
    longest: int
    pad_id: int

    def fill(self, kind: "type[Rows | ProductRows]") -> tuple[dict[str, np.ndarray], list[tuple[int, int, Example]]]:
        """The arrays that all kinds have, and (row, place in it, example) of all that the rows hold."""
        rows, length = self.shape
        arrays = {
            "tokens": np.full((rows, length), self.pad_id, np.int32),
            "starts": np.full((rows, length), length, np.int32),
            "ids": np.full((rows, length), -1, np.int32),
        }
        held = []
        for row, members in enumerate(self.packed):
            at = 0
            for member in members:
                fed = kind.fed(self.examples[member], self.prefix)
                here = slice(at, at + len(fed))
                arrays["tokens"][row, here], arrays["starts"][row, here] = fed, at
                arrays["ids"][row, here] = self.ids[member]
                held.append((row, at, self.examples[member]))
                at = here.stop
        return arrays, held


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Rows:
    """Examples behind a shared prefix, of which the completions' tokens are asked; arrays may carry a leading device axis.

    `starts` says for each token where in the row its example begins, `ids` the example's number in the training set; for
    padding the row's length and -1. `positions[b, t]` is where in row b the label `labels[b, t]` is predicted from (the
    token before it); `weights` is 1 for a target and 0 for padding. No example has more than `longest` tokens.
    """

    tokens: Int[np.ndarray, "*devices batch length"]
    starts: Int[np.ndarray, "*devices batch length"]
    ids: Int[np.ndarray, "*devices batch length"]
    positions: Int[np.ndarray, "*devices batch targets"]
    labels: Int[np.ndarray, "*devices batch targets"]
    weights: Float[np.ndarray, "*devices batch targets"]
    longest: int = field(metadata=STATIC)

    @staticmethod
    def fed(example: Example, prefix: int) -> tuple[int, ...]:
        """The tokens behind the prefix. The last target is only predicted, never fed."""
        tokens = (example.prompt_ids + example.completion_ids)[prefix:]
        return tokens[:-1] if example.completion_ids else tokens

    @staticmethod
    def size(example: Example) -> int:
        """All its tokens, prompt and target."""
        return len(example)

    @staticmethod
    def counts(example: Example) -> tuple[int]:
        """Targets."""
        return (len(example.completion_ids),)

    @classmethod
    def filled(cls, packing: Packing) -> "Rows":
        """The rows of a packing."""
        arrays, held = packing.fill(cls)
        shape = (packing.shape[0], packing.budgets[0])
        positions, labels, weights = np.zeros(shape, np.int32), np.zeros(shape, np.int32), np.zeros(shape, np.float32)
        room = [0] * shape[0]
        for row, at, example in held:
            count, end = len(example.completion_ids), at + len(cls.fed(example, packing.prefix))
            there = slice(room[row], room[row] + count)
            positions[row, there] = np.arange(end - count, end)
            labels[row, there] = example.completion_ids
            weights[row, there] = 1.0
            room[row] = there.stop
        return cls(**arrays, positions=positions, labels=labels, weights=weights, longest=packing.longest)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ProductRows:
    """Prompts up to their last product, of which the products are read.

    `parts` says for each token to which part of the row it belongs, -1 to none: part p · fields + f is field f of product p,
    counted over all the row's prompts. A row has at most `most` products. The rest is as in `Rows`.
    """

    tokens: Int[np.ndarray, "*devices batch length"]
    starts: Int[np.ndarray, "*devices batch length"]
    ids: Int[np.ndarray, "*devices batch length"]
    parts: Int[np.ndarray, "*devices batch length"]
    longest: int = field(metadata=STATIC)
    fields: int = field(metadata=STATIC)
    most: int = field(metadata=STATIC)

    @staticmethod
    def fed(example: Example, prefix: int) -> tuple[int, ...]:
        """The tokens behind the prefix, up to the last product's end."""
        return example.prompt_ids[prefix : example.products[-1][-1][1]]

    @staticmethod
    def size(example: Example) -> int:
        """All its tokens up to the last product's end."""
        return example.products[-1][-1][1]

    @staticmethod
    def counts(example: Example) -> tuple[int, ...]:
        """Products."""
        return (len(example.products),)

    @classmethod
    def filled(cls, packing: Packing) -> "ProductRows":
        """The rows of a packing."""
        arrays, held = packing.fill(cls)
        arrays["parts"], fields, _ = number_parts(packing, held)
        return cls(**arrays, longest=packing.longest, fields=fields, most=packing.budgets[0])


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PairRows(ProductRows):
    """Product rows of which each two products of a session are asked whether they share a bundle.

    Pair p of row b is of the products first[b, p] and second[b, p], and labels[b, p] is 1 if they do; `weights` is 0 for
    padding.
    """

    first: Int[np.ndarray, "*devices batch pairs"]
    second: Int[np.ndarray, "*devices batch pairs"]
    labels: Float[np.ndarray, "*devices batch pairs"]
    weights: Float[np.ndarray, "*devices batch pairs"]

    @staticmethod
    def counts(example: Example) -> tuple[int, int]:
        """Products and pairs."""
        count = len(example.products)
        return count, count * (count - 1) // 2

    @classmethod
    def filled(cls, packing: Packing) -> "PairRows":
        """The rows of a packing."""
        arrays, held = packing.fill(cls)
        arrays["parts"], fields, numbers = number_parts(packing, held)
        shape = (packing.shape[0], packing.budgets[1])
        first, second = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        labels, weights = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        room = [0] * shape[0]
        for (row, _, example), number in zip(held, numbers, strict=True):
            a, b = np.triu_indices(len(example.products), k=1)
            there = slice(room[row], room[row] + len(a))
            first[row, there], second[row, there] = number + a, number + b
            labels[row, there], weights[row, there] = pair_labels(example), 1.0
            room[row] = there.stop
        pairs = {"first": first, "second": second, "labels": labels, "weights": weights}
        return cls(**arrays, longest=packing.longest, fields=fields, most=packing.budgets[0], **pairs)


def number_parts(packing: Packing, held: Sequence[tuple[int, int, Example]]) -> tuple[np.ndarray, int, list[int]]:
    """`parts` and `fields` of rows, and of each example held the number of its first product."""
    parts, room, numbers = np.full(packing.shape, -1, np.int32), [0] * packing.shape[0], []
    fields = len(packing.examples[0].products[0])
    for row, at, example in held:
        numbers.append(room[row])
        for number, (begin, end) in enumerate(chain(*example.products), start=room[row] * fields):
            parts[row, at + begin - packing.prefix : at + end - packing.prefix] = number
        room[row] += len(example.products)
    return parts, fields, numbers


def pair_labels(example: Example) -> Float[np.ndarray, " pairs"]:
    """1 for each pair (0, 1), (0, 2), …, (1, 2), … of products that shares a bundle, 0 for the others."""
    return share_a_bundle(example.bundles, len(example.products))
