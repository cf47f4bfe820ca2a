"""What decoding remembers, and what of it the next token sees."""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from kdjax.student.arrays import AnyArray
from kdjax.student.families import DecoderConfig

KV = tuple[Float[Array, "..."], Float[Array, "..."]]  # keys, values


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Cache:
    """What decoding remembers of a batch, all layers stacked first.

    prefix [layers, kv, prefix, head_dim], shared by the rows; prompt [layers, kv, batch, length, head_dim], of which row b
    uses the first lengths[b]; generated [layers, kv, batch, steps, head_dim], of which row b has filled the first filled[b].
    The keys of prompt and generated have their last two axes swapped: a product over keys that stand side by side takes a
    CPU a quarter of the time.
    """

    prefix: KV | None
    prompt: KV
    generated: KV
    lengths: Int[Array, " batch"]
    filled: Int[Array, " batch"]

    @classmethod
    def empty(cls, config: DecoderConfig, rows: int, length: int, steps: int, dtype) -> "Cache":
        """Room for `rows` prompts of at most `length` tokens, and for `steps` more of each; no prefix yet."""
        lead = config.num_hidden_layers, config.num_key_value_heads, rows

        def room(size: int) -> KV:
            return jnp.zeros((*lead, config.head_dim, size), dtype), jnp.zeros((*lead, size, config.head_dim), dtype)

        none = jnp.zeros(rows, jnp.int32)
        return cls(None, room(length), room(steps), none, none)

    def admit(
        self, prompts: KV, first: Int[AnyArray, " n"], lengths: Int[AnyArray, " n"], slots: Int[AnyArray, " n"]
    ) -> "Cache":
        """Let new prompts take the place of old rows: prompt p begins at first[p] of the keys and values [layers, kv, tokens, head_dim].

        A length of 0 ends the list.
        """
        room = self.prompt[0].shape[4]
        padded = [jnp.pad(part, ((0, 0), (0, 0), (0, room), (0, 0))) for part in prompts]

        def put(p, kept: KV) -> KV:
            keys, values = (jax.lax.dynamic_slice_in_dim(part, first[p], room, axis=2)[:, :, None] for part in padded)
            return (
                jax.lax.dynamic_update_slice_in_dim(kept[0], jnp.swapaxes(keys, -1, -2), slots[p], axis=2),
                jax.lax.dynamic_update_slice_in_dim(kept[1], values, slots[p], axis=2),
            )

        taken = jnp.where(lengths > 0, slots, self.lengths.size)
        return replace(
            self,
            prompt=jax.lax.fori_loop(0, jnp.sum(lengths > 0), put, self.prompt),
            lengths=self.lengths.at[taken].set(lengths, mode="drop"),
            filled=self.filled.at[taken].set(0, mode="drop"),
        )

    def keep(self, rows: Int[Array, " n"]) -> "Cache":
        """These rows alone."""
        prompt, generated = jax.tree.map(lambda part: part[:, :, rows], (self.prompt, self.generated))
        return Cache(self.prefix, prompt, generated, self.lengths[rows], self.filled[rows])

    @property
    def next_position(self) -> Int[Array, " batch"]:
        """Where the next token of each row stands, counted from the prefix's end."""
        return self.lengths + self.filled

    def extend(self, new: KV, count: Int[Array, " batch"]) -> "Cache":
        """Remember the keys and values [layers, kv, batch, width, head_dim] of the next tokens, of which row b has count[b].

        The places after these are free: what is written there is overwritten by the next call. All rows are written at once: a
        loop over them is as quick on a CPU, but with 48 rows or more TPU compilers reject it.
        """

        def write(kept, fresh, axis: int):
            at_row = partial(jax.lax.dynamic_update_slice_in_dim, axis=axis)
            return jax.vmap(at_row, (2, 2, 0), 2)(kept, fresh, self.filled)

        keys, values = self.generated
        generated = write(keys, jnp.swapaxes(new[0], -1, -2), 3), write(values, new[1], 2)
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
        prompt, generated = jnp.arange(cache.prompt[0].shape[4]), jnp.arange(cache.generated[0].shape[4])
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
