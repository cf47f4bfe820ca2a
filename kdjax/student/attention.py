"""Grouped-query attention over a shared prefix and an example's own tokens, without a mask over the long row.

Layout: `kv` key/value heads first, then batch; the query heads of a group are folded into rows, so keys and values are
never repeated.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

BLOCK = (
    64  # queries per static block: keys stop at the block's end, so about half of the score matrix is never computed
)

Segment = tuple[
    Float[Array, "kv *batch keys head_dim"], Float[Array, "kv *batch keys head_dim"], Bool[Array, "..."] | None
]


def attend(
    query: Float[Array, "kv batch rows head_dim"], segments: list[Segment]
) -> Float[Array, "kv batch rows head_dim"]:
    """Softmax attention over several segments of keys at once; equal to attention over their concatenation.

    A segment is (keys, values, mask): keys and values [kv, keys, head_dim] are shared by the batch, [kv, batch, keys,
    head_dim] are each row's own; the mask, where there is one, broadcasts to [kv, batch, rows, keys].
    """
    scale = query.shape[-1] ** -0.5
    scores = []
    for keys, _, mask in segments:
        pattern = "kbrd,knd->kbrn" if keys.ndim == 3 else "kbrd,kbnd->kbrn"
        score = jnp.einsum(pattern, query, keys, preferred_element_type=jnp.float32) * scale
        scores.append(score if mask is None else jnp.where(mask, score, -jnp.inf))
    top = jax.lax.stop_gradient(jnp.max(jnp.stack([score.max(axis=-1) for score in scores]), axis=0))[..., None]
    out, total = 0.0, 0.0
    for score, (_, values, _) in zip(scores, segments, strict=True):
        weights = jnp.exp(score - top)
        total = total + weights.sum(axis=-1, keepdims=True)
        pattern = "kbrn,knd->kbrd" if values.ndim == 3 else "kbrn,kbnd->kbrd"
        out = out + jnp.einsum(pattern, weights.astype(values.dtype), values, preferred_element_type=jnp.float32)
    return (out / total).astype(query.dtype)


def causal_attention(
    query: Float[Array, "kv batch length group head_dim"],
    keys: Float[Array, "kv batch length head_dim"],
    values: Float[Array, "kv batch length head_dim"],
    prefix: tuple[Float[Array, "kv keys head_dim"], Float[Array, "kv keys head_dim"]] | None = None,
    window: int | None = None,
    starts: Int[Array, "batch length"] | None = None,
) -> Float[Array, "kv batch length group head_dim"]:
    """Causal attention of each row to itself, and to a shared prefix where one is given; with `window`, at most to so many last tokens.

    With `starts`, a row holds several examples, and a token sees its own example alone: from where it starts.
    """
    kv, batch, length, group, head_dim = query.shape
    blocks = []
    for start in range(0, length, BLOCK):
        stop = min(start + BLOCK, length)
        rows = query[:, :, start:stop].reshape(kv, batch, (stop - start) * group, head_dim)
        position = jnp.repeat(jnp.arange(start, stop), group)
        distance = position[:, None] - jnp.arange(stop)
        seen = distance >= 0 if window is None else (distance >= 0) & (distance < window)
        place = position[:, None]
        if starts is not None:
            first = jnp.repeat(starts[:, start:stop], group, axis=1)[..., None]  # [batch, rows, 1]
            seen, place = seen & (jnp.arange(stop) >= first), place - first
        segments: list[Segment] = [(keys[:, :, :stop], values[:, :, :stop], seen)]
        if prefix is not None:
            size = prefix[0].shape[1]
            near = None if window is None else size + place - jnp.arange(size) < window
            segments.insert(0, (*prefix, near))
        out = attend(rows, segments)
        blocks.append(out.reshape(kv, batch, stop - start, group, head_dim))
    return jnp.concatenate(blocks, axis=2)
