"""LoRA's dropout."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from kdjax.student.arrays import AnyArray


@dataclass(frozen=True)
class Dropout:
    """LoRA dropout keyed by example and position, not by row: where an example stands in a batch does not change its mask.

    `keys` holds one per token: the prefix's, then those of the rows. The prefix is computed once, so its mask is shared by
    all examples: the one way in which a step with a shared prefix differs from a step without.
    """

    rate: float
    keys: Key[Array, " tokens"]

    @classmethod
    def of_step(
        cls,
        rate: float,
        key: PRNGKeyArray,
        ids: Int[AnyArray, "batch length"],
        starts: Int[AnyArray, "batch length"],
        prefix: int,
    ) -> "Dropout":
        """Masks of one training step. `ids` are the examples' numbers in the training set (0, 1, …; -1 pads), `starts` where
        in the row each token's example begins."""
        shared, places = jnp.arange(prefix), jnp.arange(ids.shape[1]) - starts
        numbers = jnp.concatenate([jnp.zeros(prefix, jnp.int32), ids.reshape(-1) + 1])
        places = jnp.concatenate([shared, places.reshape(-1)])
        fold = jax.vmap(jax.random.fold_in)
        return cls(rate, fold(jax.vmap(jax.random.fold_in, (None, 0))(key, numbers), places))

    def at(self, place: int | Int[Array, ""]) -> "Dropout":
        """The masks of a layer, or of a linear map inside it."""
        return Dropout(self.rate, jax.vmap(jax.random.fold_in, (0, None))(self.keys, place))

    def __call__(self, x: Float[Array, "tokens features"]) -> Float[Array, "tokens features"]:
        """Zero a share `rate` of the entries of x, and scale the others up."""
        keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - self.rate, x.shape[1:]))(self.keys)
        return jnp.where(keep, x / (1.0 - self.rate), 0.0).astype(x.dtype)
