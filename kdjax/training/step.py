"""One optimizer step: gradients summed over micro-batches and devices, divided by the number of targets, then AdamW."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from kdjax.training.batches import MicroBatch
from kdjax.training.loss import TEXT, Objective
from kdjax.training.parallel import AXIS, Parallel

# Optax mixes dtypes, where ours may be forbidden to.
OPTAX = partial(jax.numpy_dtype_promotion, "standard")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Totals:
    """Sums over the micro-batches and devices of a step so far: gradients of the summed loss, the loss, its targets (tokens or pairs)."""

    gradients: dict
    loss: Float[Array, ""]
    tokens: Float[Array, ""]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """All that training changes: the adapter (with a pair head, where there is one), AdamW's moments, and how many steps were taken."""

    adapter: dict
    optimizer: Any
    step: Int[Array, ""]


class Trainer:
    """The compiled programs of training.

    The state is replicated (`in_axes=None`, `out_axes=None`), each share of the rows is computed on its own, and one psum
    inside adds up gradients, loss and token counts. `parallel` says over which devices; None: pmap over all.
    """

    def __init__(
        self,
        graph: nnx.GraphDef,
        base: dict,
        optimizer: optax.GradientTransformation,
        dropout_rate: float,
        remat: str = "linears",
        objective: Objective = TEXT,
        parallel: Parallel | None = None,
    ):
        self.parallel = parallel or Parallel()
        self._optimizer = optimizer
        self.base = self.parallel.place_base(base)

        def accumulate(adapter, base, prefix, rows, key, totals):
            dropout = dropout_rate, jax.random.wrap_key_data(key)

            def summed(adapter):
                return objective.losses(graph, adapter, base, prefix, rows, dropout, remat).sum()

            loss, gradients = jax.value_and_grad(summed)(adapter)
            fresh = jax.lax.psum(Totals(gradients, loss, rows.weights.sum()), AXIS)
            return jax.tree.map(jnp.add, totals, fresh)

        self._accumulate = self.parallel.spread(
            accumulate, (None, None, None, 0, None, None), None, donate_argnums=5, together=True
        )
        # By the way on which sums come back: placed otherwise, zeros would have each shape of rows compiled once more.
        self._zeros = self.parallel.spread(
            lambda adapter, _: Totals(jax.tree.map(jnp.zeros_like, adapter), jnp.zeros(()), jnp.zeros(())),
            (None, 0),
            None,
            together=True,
        )
        self._numbers = self.parallel.put_shares(np.arange(self.parallel.all_shares))  # something of each share
        self._fold = jax.jit(  # its numbers, since pmap over several processes takes arrays, not keys
            lambda key, step: jax.random.key_data(jax.random.fold_in(key, step)), out_shardings=self.parallel.replicated
        )
        self._update = jax.jit(self._apply, donate_argnums=0)

    def init(self, adapter: dict) -> TrainState:
        """The state before the first step; a copy, since each step takes over the buffers of the state it is given."""
        adapter = jax.tree.map(jnp.copy, adapter)
        with OPTAX():
            moments = self._optimizer.init(adapter)
        return self.parallel.replicate(TrainState(adapter, moments, jnp.zeros((), jnp.int32)))

    def step(
        self, state: TrainState, batches: list[MicroBatch], key: PRNGKeyArray
    ) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
        """One optimizer step over all micro-batches, cut into `parallel.all_shares`. `state` is consumed.

        `key` seeds dropout, together with the state's step. Nothing but the rows and what they share goes to the
        devices. Returns the new state and {"loss": mean per target, "gradient_norm", "largest_weight" of the new
        adapter, "tokens"}, still on the device.
        """
        put = self.parallel
        totals, key = self._zeros(state.adapter, self._numbers), self._fold(key, state.step)
        for batch in batches:
            prefix, rows = put.replicate(batch.prefix), put.put_shares(batch.rows)
            totals = self._accumulate(state.adapter, self.base, prefix, rows, key, totals)
        return self._update(state, totals)

    def _apply(self, state: TrainState, totals: Totals):
        gradients = jax.tree.map(lambda g: g / totals.tokens, totals.gradients)
        with OPTAX():
            updates, optimizer = self._optimizer.update(gradients, state.optimizer, state.adapter)
            adapter = optax.apply_updates(state.adapter, updates)
        metrics = {
            "loss": totals.loss / totals.tokens,
            "gradient_norm": optax.tree.norm(gradients),
            "largest_weight": optax.tree.norm(adapter, ord=jnp.inf),
            "tokens": totals.tokens,
        }
        return TrainState(adapter, optimizer, state.step + 1), metrics


def learning_rate_schedule(peak: float, steps: int, warmup_ratio: float) -> optax.Schedule:
    """Learning rate of step 0, 1, …: linear warm-up over the first share of the steps, then cosine decay towards zero."""
    warmup = max(1, round(steps * warmup_ratio))
    schedule = optax.warmup_cosine_decay_schedule(0.0, peak, warmup, max(steps, warmup) + 1)

    def rate(step):
        with OPTAX():
            return schedule(step + 1)  # neither the first step nor the last is wasted on a rate of zero

    return rate


def adamw(schedule: optax.Schedule, weight_decay: float, max_grad_norm: float) -> optax.GradientTransformation:
    """AdamW behind a clip of the global gradient norm."""
    return optax.chain(optax.clip_by_global_norm(max_grad_norm), optax.adamw(schedule, weight_decay=weight_decay))
