"""LoRA's dropout."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray


@dataclass(frozen=True)
class Dropout:
    """LoRA dropout keyed by example, not by row: where an example stands in a batch does not change its mask.

    `keys` [1 + batch] holds the prefix's key and one per example. The prefix is computed once, so its mask is shared by
    all examples: the one way in which a step with a shared prefix differs from a step without.
    """

    rate: float
    keys: Key[Array, " rows"]
    prefix: int
    length: int

    @classmethod
    def of_step(
        cls, rate: float, key: PRNGKeyArray, example_ids: Int[Array, " batch"], prefix: int, length: int
    ) -> "Dropout":
        """Masks of one training step; `example_ids` are the examples' numbers in the training set (0, 1, …; -1 pads)."""
        ids = jnp.concatenate([jnp.zeros(1, jnp.int32), example_ids.astype(jnp.int32) + 1])
        return cls(rate, jax.vmap(jax.random.fold_in, (None, 0))(key, ids), prefix, length)

    def at(self, place: int | Int[Array, ""]) -> "Dropout":
        """The masks of a layer, or of a linear map inside it."""
        return Dropout(self.rate, jax.vmap(jax.random.fold_in, (0, None))(self.keys, place), self.prefix, self.length)

    def __call__(self, x: Float[Array, "tokens features"]) -> Float[Array, "tokens features"]:
        """Zero a share `rate` of the entries of x, and scale the others up."""
        features = x.shape[-1]
        keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - self.rate, (self.length, features)))(self.keys[1:])
        keep = keep.reshape(-1, features)
        if self.prefix:
            shared = jax.random.bernoulli(self.keys[0], 1.0 - self.rate, (self.prefix, features))
            keep = jnp.concatenate([shared, keep])
        return jnp.where(keep, x / (1.0 - self.rate), 0.0).astype(x.dtype)
