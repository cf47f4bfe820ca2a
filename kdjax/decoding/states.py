"""The hidden states of products, read off prompts; nothing is generated."""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from flax import nnx
from jaxtyping import Float

from kdjax.decoding.steady import SteadyRows
from kdjax.prompting import Example
from kdjax.student import Student
from kdjax.training import MicroBatch, Parallel, ProductRows, lay_out, plan_groups, product_states


class StateReader:
    """Reads each product's states behind the student's first `layers` layers, one per field. Compiled programs are
    kept, so one serves all epochs.

    `micro_batch_tokens`: about as many are read at a time on each device of this process. `steady` lays prompts out
    instead, where sessions come one by one.
    """

    def __init__(
        self,
        student: Student,
        layers: int,
        micro_batch_tokens: int,
        parallel: Parallel | None = None,
        steady: SteadyRows | None = None,
    ):
        self.layers, self._steady = layers, steady
        self._student, self._tokens, self._parallel = student, micro_batch_tokens, parallel or Parallel()
        graph = student.graph

        def read(adapter, base, prefix, rows: ProductRows) -> Float[jax.Array, "batch most fields hidden"]:
            return product_states(nnx.merge(graph, adapter, base), prefix, rows, layers)

        self._read = self._parallel.spread(read, (None, None, None, 0))

    def __call__(
        self, adapter: dict, prompts: Sequence[Example], on_batch: Callable[[int], None] = lambda prompts: None
    ) -> list[Float[np.ndarray, "products fields hidden"]]:
        """The states of each prompt's products, by the student's base with `adapter`; `on_batch` hears how many prompts were read more."""
        found: list[np.ndarray] = [np.zeros(0)] * len(prompts)
        if self._steady:
            groups = self._steady.groups(prompts)
        else:
            groups = plan_groups(prompts, self._tokens, self._parallel.long_rows, ProductRows)
        for batch in lay_out(prompts, groups, self._parallel.shares, self._student.tokenizer.eos_id):
            states = np.asarray(self._read(adapter, self._student.base, batch.prefix, batch.rows))
            for member in batch.members:
                found[member] = states[_of_member(batch, member)]
            on_batch(len(batch.members))
        return found


def _of_member(batch: MicroBatch, member: int) -> tuple[int, int, slice]:
    """Device, row and products of a prompt."""
    rows = batch.rows
    assert isinstance(rows, ProductRows)  # so they were planned
    device, row, places = np.nonzero((rows.ids == member) & (rows.parts >= 0))
    numbers = rows.parts[device[0], row[0], places] // rows.fields
    return int(device[0]), int(row[0]), slice(int(numbers[0]), int(numbers[-1]) + 1)
