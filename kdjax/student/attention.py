"""Grouped-query attention: of whole rows behind a shared prefix (`causal_attention`), and of the next tokens to a cache (`attend`).

Layout: `kv` key/value heads first, then batch; the query heads of a group are folded into rows, so keys and values are
never repeated.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int

BLOCK = (
    64  # queries per static block: keys stop at the block's end, so about half of the score matrix is never computed
)
KEPT = "attention"  # what the output and the normaliser are called where a policy decides what to keep

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
        score = _product(pattern, query, keys) * scale
        scores.append(score if mask is None else jnp.where(mask, score, -jnp.inf))
    top = jnp.max(jnp.stack([score.max(axis=-1) for score in scores]), axis=0)[..., None]
    out, total = 0.0, 0.0
    for score, (_, values, _) in zip(scores, segments, strict=True):
        weights = jnp.exp(score - top)
        total = total + weights.sum(axis=-1, keepdims=True)
        pattern = "kbrn,knd->kbrd" if values.ndim == 3 else "kbrn,kbnd->kbrd"
        out = out + _product(pattern, weights.astype(values.dtype), values)
    return (out / total).astype(query.dtype)


def causal_attention(
    query: Float[Array, "kv batch length group head_dim"],
    keys: Float[Array, "kv batch length head_dim"],
    values: Float[Array, "kv batch length head_dim"],
    prefix: tuple[Float[Array, "kv shared head_dim"], Float[Array, "kv shared head_dim"]] | None = None,
    window: int | None = None,
    starts: Int[Array, "batch length"] | None = None,
) -> Float[Array, "kv batch length group head_dim"]:
    """Causal attention of each row to itself, and to a shared prefix where one is given; with `window`, at most to so many last tokens.

    With `starts`, a row holds several examples, and a token sees its own example alone: from where it starts. The backward
    pass computes the weights anew from the output and the softmax's normaliser, which a checkpoint policy may keep (KEPT).
    """
    kv, batch, length, _, head_dim = query.shape
    shared = prefix or (jnp.zeros((kv, 0, head_dim), keys.dtype),) * 2
    if starts is None:
        starts = jnp.zeros((batch, length), jnp.int32)
    return _causal_attention(window, query, keys, values, *shared, starts)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _causal_attention(window, query, keys, values, shared_keys, shared_values, starts):
    return _attention_forward(window, query, keys, values, shared_keys, shared_values, starts)[0]


def _attention_forward(window, query, keys, values, shared_keys, shared_values, starts):
    def row(query, keys, values, starts):
        """[kv, length, group, head_dim] and [kv, length, group]."""
        keys, values = (jnp.concatenate(pair, axis=1) for pair in ((shared_keys, keys), (shared_values, values)))
        outputs, normalisers = [], []
        for block in _blocks(query, keys, starts, window):
            seen_keys, seen_values = keys[:, : block.reach], values[:, : block.reach]
            score = jnp.where(block.mask, _scores(block.of(query), seen_keys), -jnp.inf)
            top = score.max(axis=-1, keepdims=True)
            weights = jnp.exp(score - top)
            total = weights.sum(axis=-1, keepdims=True)
            out = _product("krn,knd->krd", weights.astype(values.dtype), seen_values) / total
            outputs.append(block.back(out.astype(query.dtype)))
            normalisers.append(block.back(top + jnp.log(total))[..., 0])
        return jnp.concatenate(outputs, axis=1), jnp.concatenate(normalisers, axis=1)

    out, normaliser = _by_row(row, query, keys, values, starts)
    out, normaliser = checkpoint_name(out, KEPT), checkpoint_name(normaliser, KEPT)
    return out, (query, keys, values, shared_keys, shared_values, starts, out, normaliser)


def _attention_backward(window, kept, d_out):
    query, keys, values, shared_keys, shared_values, starts, out, normaliser = kept
    size = shared_keys.shape[1]

    def row(query, keys, values, starts, out, normaliser, d_out):
        keys, values = (jnp.concatenate(pair, axis=1) for pair in ((shared_keys, keys), (shared_values, values)))
        d_query, d_keys, d_values = [], jnp.zeros(keys.shape, jnp.float32), jnp.zeros(values.shape, jnp.float32)
        for block in _blocks(query, keys, starts, window):
            seen_keys, seen_values = keys[:, : block.reach], values[:, : block.reach]
            rows, d_rows = block.of(query), block.of(d_out)
            score = _scores(rows, seen_keys) - block.of(normaliser[..., None])
            weights = jnp.where(block.mask, jnp.exp(score), 0.0)
            mean = jnp.sum(d_rows * block.of(out), axis=-1, keepdims=True, dtype=jnp.float32)
            d_score = weights * (_product("krd,knd->krn", d_rows, seen_values) - mean) * query.shape[-1] ** -0.5
            d_score, weights = d_score.astype(query.dtype), weights.astype(query.dtype)
            d_query.append(block.back(_product("krn,knd->krd", d_score, seen_keys)))
            d_keys = d_keys.at[:, : block.reach].add(_product("krn,krd->knd", d_score, rows))
            d_values = d_values.at[:, : block.reach].add(_product("krn,krd->knd", weights, d_rows))
        return jnp.concatenate(d_query, axis=1), d_keys, d_values

    d_query, d_keys, d_values = _by_row(row, query, keys, values, starts, out, normaliser, d_out)
    shared = (part[:, :, :size].sum(axis=1) for part in (d_keys, d_values))
    gradients = (d_query, d_keys[:, :, size:], d_values[:, :, size:], *shared)
    like = (query, keys, values, shared_keys, shared_values)
    return *(gradient.astype(one.dtype) for gradient, one in zip(gradients, like, strict=True)), None


_causal_attention.defvjp(_attention_forward, _attention_backward)


@dataclass(frozen=True)
class _Block:
    """Some queries of a row, the heads of a group as rows of one matrix; keys stop at `reach`, since later ones are never seen."""

    start: int
    stop: int
    reach: int
    mask: Bool[Array, "rows reach"]

    def of(self, part: Float[Array, "kv length group width"]) -> Float[Array, "kv rows width"]:
        """The block's part of an array of the whole row."""
        return part[:, self.start : self.stop].reshape(part.shape[0], -1, part.shape[-1])

    def back(self, part: Float[Array, "kv rows width"]) -> Float[Array, "kv queries group width"]:
        """With the group apart again."""
        return part.reshape(part.shape[0], self.stop - self.start, -1, part.shape[-1])


def _blocks(query, keys, starts, window) -> Iterator[_Block]:
    """A row's blocks of queries against its keys, which are those of the shared prefix and then its own."""
    length, group = query.shape[1:3]
    size = keys.shape[1] - length
    for start in range(0, length, BLOCK):
        stop = min(start + BLOCK, length)
        key = jnp.arange(-size, stop)
        place = jnp.repeat(jnp.arange(start, stop), group)[:, None]
        first = jnp.repeat(starts[start:stop], group)[:, None]
        mask = (key < 0) | ((key <= place) & (key >= first))
        if window is not None:  # the prefix ends right before the example's first token, wherever that stands
            mask &= jnp.where(key < 0, place - first - key, place - key) < window
        yield _Block(start, stop, size + stop, mask)


def _by_row(function, *rows):
    """`function` of each row, the batch being the second axis of arrays with heads, and the first of others.

    On a CPU one row after the other: its scores stay in the cache, which is worth more than large products.
    """
    first = [part if part.ndim == 2 else jnp.moveaxis(part, 1, 0) for part in rows]
    if jax.default_backend() == "cpu":
        results = jax.lax.map(lambda parts: function(*parts), first)
    else:
        results = jax.vmap(function)(*first)
    return jax.tree.map(lambda part: jnp.moveaxis(part, 0, 1), results)


def _scores(rows, keys):
    return _product("krd,knd->krn", rows, keys) * rows.shape[-1] ** -0.5


def _product(pattern: str, *parts):
    return jnp.einsum(pattern, *parts, preferred_element_type=jnp.float32)
