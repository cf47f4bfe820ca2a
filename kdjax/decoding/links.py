"""Links read off the prompts: no token is generated. What they say of each pair of products follows exactly."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from kdjax.prompting import Example, Target, numeral_ids
from kdjax.student import Student
from kdjax.training import MicroBatch, lay_out, plan_groups
from kdjax.training.batches import Rows


class LinkReader:
    """Reads a student's links at the ends of the products' lines. Compiled programs are kept, so one serves all epochs.

    `micro_batch_tokens`: about as many are read at a time on each device.
    """

    def __init__(self, student: Student, micro_batch_tokens: int):
        self._student, self._tokens = student, micro_batch_tokens
        self._devices = jax.local_device_count()
        self._numerals = numeral_ids(student.tokenizer)
        graph, words = student.graph, np.asarray(self._numerals)

        def read(adapter, base, prefix: Int[Array, " prefix"], rows: Rows) -> Float[Array, "batch targets numerals"]:
            decoder = nnx.merge(graph, adapter, base)
            hidden = decoder(rows.tokens, prefix, None, "none", rows.starts, rows.longest)
            picked = jnp.take_along_axis(hidden, rows.positions[..., None], axis=1)
            return jnp.matmul(picked, decoder.head[words].T, preferred_element_type=jnp.float32)

        self._read = jax.pmap(read, in_axes=(None, None, None, 0))

    def __call__(
        self, adapter: dict, prompts: Sequence[Example], on_batch: Callable[[int], None] = lambda prompts: None
    ) -> list[Float[np.ndarray, "products products"]]:
        """For each prompt [n, n]: row i is the distribution over the numerals 0 (no earlier product), 1, …, i.

        The first product has nothing before it: its row is (1, 0, …). `on_batch` hears how many prompts were read more.
        """
        asked = [replace(prompt, links=_places(prompt, self._numerals[0])) for prompt in prompts]
        found = [np.eye(len(prompt.line_ends)) for prompt in prompts]
        groups = plan_groups(asked, self._tokens)
        for batch in lay_out(asked, groups, self._devices, self._student.tokenizer.eos_id):
            logits = np.asarray(self._read(adapter, self._student.base, batch.prefix, batch.rows), np.float64)
            for member in batch.members:
                found[member][1:] = _distributions(_of_member(logits, batch, member))
            on_batch(len(batch.members))
        return found


def _places(prompt: Example, label: int) -> tuple[Target, ...]:
    """A target, its label of no account, at the end of each line but the first."""
    return tuple(Target(end, label) for end in prompt.line_ends[1:])


def _of_member(logits: np.ndarray, batch: MicroBatch, member: int) -> Float[np.ndarray, "links numerals"]:
    rows = batch.rows
    ids = np.take_along_axis(rows.ids, rows.positions, axis=-1)
    return logits[(ids == member) & (rows.weights > 0)]


def _distributions(logits: Float[np.ndarray, "links numerals"]) -> Float[np.ndarray, "links products"]:
    """Row i: softmax over the numerals 0, …, i + 1; a product that has not come yet cannot be named."""
    links = len(logits)
    allowed = np.tri(links, links + 1, 1, dtype=bool)
    shown = np.where(allowed, logits[:, : links + 1], -np.inf)
    weights = np.exp(shown - shown.max(axis=-1, keepdims=True, initial=-np.inf))
    return weights / weights.sum(axis=-1, keepdims=True)


def pair_probabilities(links: Float[np.ndarray, "products products"]) -> Float[np.ndarray, "products products"]:
    """The probability that two products share a bundle, where each product chooses its link by its row, independently.

    A product joins the bundle of the one that it names, and no later choice merges two bundles; so, for a < b,
    P(a ~ b) = Σ_{c < b} P(b names c) · P(a ~ c), exactly.
    """
    together = np.eye(len(links))
    for b in range(1, len(links)):
        together[b, :b] = together[:b, b] = links[b, 1 : b + 1] @ together[:b, :b]
    return together
