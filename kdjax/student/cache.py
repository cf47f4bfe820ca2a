"""What decoding remembers, and what of it the next token sees."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

KV = tuple[Float[Array, "..."], Float[Array, "..."]]  # keys, values


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Cache:
    """What decoding remembers of a batch, all layers stacked first.

    prefix [layers, kv, prefix, head_dim], shared by the rows; prompt [layers, kv, batch, length, head_dim], of which row b
    uses the first lengths[b]; generated [layers, kv, batch, steps, head_dim], of which row b has filled the first filled[b].
    """

    prefix: KV | None
    prompt: KV
    generated: KV
    lengths: Int[Array, " batch"]
    filled: Int[Array, " batch"]

    @property
    def next_position(self) -> Int[Array, " batch"]:
        """Where the next token of each row stands, counted from the prefix's end."""
        return self.lengths + self.filled

    def extend(self, new: KV, count: Int[Array, " batch"]) -> "Cache":
        """Remember the keys and values [layers, kv, batch, width, head_dim] of the next tokens, of which row b has count[b].

        What stands behind them means nothing and is overwritten by the next.
        """
        write = jax.vmap(
            lambda old, fresh, at: jax.lax.dynamic_update_slice_in_dim(old, fresh, at, axis=2), (2, 2, 0), 2
        )
        generated = tuple(write(old, fresh, self.filled) for old, fresh in zip(self.generated, new, strict=True))
        return replace(self, generated=generated, filled=self.filled + count)


@dataclass(frozen=True)
class CacheMasks:
    """What the next tokens of each row see of the cache and of each other, broadcast to [kv, batch, queries, keys]; None: all of it."""

    prefix: Bool[Array, "..."] | None
    prompt: Bool[Array, "..."]
    generated: Bool[Array, "..."]
    new: Bool[Array, "..."]

    @classmethod
    def of(cls, cache: Cache, width: int, group: int, window: int | None) -> "CacheMasks":
        """For `width` next tokens with `group` queries each: what is filled and, with a window, less than `window` before."""
        new = jnp.arange(width)
        query = jnp.repeat(new, group)[:, None]  # [queries, 1]
        prompt, generated = jnp.arange(cache.prompt[0].shape[3]), jnp.arange(cache.generated[0].shape[3])
        lengths, filled = (counts[:, None, None] for counts in (cache.lengths, cache.filled))  # [batch, 1, 1]
        in_prefix, in_prompt, in_generated, in_new = None, prompt < lengths, generated < filled, new <= query
        if window is not None:
            place = lengths + filled + query  # counted from the prefix's end
            in_prompt &= place - prompt < window
            in_generated &= filled + query - generated < window
            in_new &= query - new < window
            if cache.prefix is not None:
                size = cache.prefix[0].shape[2]
                in_prefix = (size + place - jnp.arange(size) < window)[None]
        return cls(in_prefix, in_prompt[None], in_generated[None], in_new[None, None])
