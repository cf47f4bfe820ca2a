"""What decoding remembers, and what of it the next token sees."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

KV = tuple[Float[Array, "..."], Float[Array, "..."]]  # keys, values


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Cache:
    """What decoding remembers of a batch, all layers stacked first.

    prefix [layers, kv, prefix, head_dim], shared by the rows; prompt [layers, kv, batch, length, head_dim], of which row b
    uses the first lengths[b]; generated [layers, kv, batch, steps, head_dim], of which `step` are filled.
    """

    prefix: KV | None
    prompt: KV
    generated: KV
    lengths: Int[Array, " batch"]
    step: Int[Array, ""]


@dataclass(frozen=True)
class CacheMasks:
    """What the next token of each row sees of the cache, broadcast to [kv, batch, rows, keys]; None: all of it."""

    prefix: Bool[Array, "..."] | None
    prompt: Bool[Array, "..."]
    generated: Bool[Array, "..."]

    @classmethod
    def of(cls, cache: Cache, window: int | None) -> "CacheMasks":
        """Positions that are filled and, with a window, less than `window` before the next token (at prefix + lengths + step)."""
        prompt, generated = jnp.arange(cache.prompt[0].shape[3]), jnp.arange(cache.generated[0].shape[3])
        next_token = (cache.lengths + cache.step)[:, None]  # counted from the prefix's end
        in_prefix, in_prompt, in_generated = None, prompt < cache.lengths[:, None], generated < cache.step
        if window is not None:
            in_prompt &= next_token - prompt < window
            in_generated &= cache.step - generated < window
            if cache.prefix is not None:
                size = cache.prefix[0].shape[2]
                in_prefix = (size + next_token - jnp.arange(size) < window)[None, :, None]
        return cls(in_prefix, in_prompt[None, :, None], in_generated[None, None, None])
