"""Grouped-query attention: of whole examples behind a shared prefix (`causal_attention`), and of the next tokens to a cache (`attend`).

Keys and values have their heads first; the query heads of a group are folded into rows, so keys and values are never
repeated.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int, PyTree

from kdjax.student.mesh import target_platform

BLOCK = 128  # queries that are computed together: keys stop at the block's end, so few scores are computed in vain
KEPT = "attention"  # what rotated queries and keys, the output and the normaliser are called where a policy decides what to keep

Segment = tuple[Float[Array, "..."], Float[Array, "kv *batch keys head_dim"], Bool[Array, "..."] | None]


def attend(
    query: Float[Array, "kv batch rows head_dim"], segments: list[Segment]
) -> Float[Array, "kv batch rows head_dim"]:
    """Softmax attention over several segments of keys at once; equal to attention over their concatenation.

    A segment is (keys, values, mask): keys and values [kv, keys, head_dim] are shared by the batch; keys [kv, batch,
    head_dim, keys] and values [kv, batch, keys, head_dim] are each row's own; the mask, where there is one, broadcasts to
    [kv, batch, rows, keys].
    """
    scale = query.shape[-1] ** -0.5
    scores = []
    for keys, _, mask in segments:
        pattern = "kbrd,knd->kbrn" if keys.ndim == 3 else "kbrd,kbdn->kbrn"
        score = _product(pattern, query, keys) * scale
        scores.append(score if mask is None else jnp.where(mask, score, -jnp.inf))
    top = jnp.max(jnp.stack([score.max(axis=-1) for score in scores]), axis=0)[..., None]
    out, total = jnp.zeros(()), jnp.zeros(())
    for score, (_, values, _) in zip(scores, segments, strict=True):
        weights = jnp.exp(score - top)
        total = total + weights.sum(axis=-1, keepdims=True)
        pattern = "kbrn,knd->kbrd" if values.ndim == 3 else "kbrn,kbnd->kbrd"
        out = out + _product(pattern, weights.astype(values.dtype), values)
    return (out / total).astype(query.dtype)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Spans:
    """Where the examples stand on the flat token axis, and how attention goes over them.

    The first `head` tokens are a prefix that all examples see. `starts` says for each token where its example begins. A CPU
    goes from block to block of the axis: `order` lists the first tokens of all blocks of queries, the examples' first
    blocks first, then their second ones, the n-th from bounds[n] up to bounds[n + 1]; the prefix is one more example.
    Other devices (no order, no bounds) compute the rows behind the prefix, of equal length, side by side.
    """

    starts: Int[Array, " tokens"] | Int[Array, "rows length"]
    order: Int[Array, " tokens"] | None = None
    bounds: Int[Array, " blocks+1"] | None = None
    head: int = field(default=0, metadata={"static": True})

    @classmethod
    def of(
        cls,
        rows: int,
        length: int,
        starts: Int[Array, "rows length"] | None = None,
        longest: int | None = None,
        head: int = 0,
    ) -> "Spans":
        """`starts`: places in the row, its length for padding; None: each row is one example. None is longer than `longest`."""
        starts = jnp.zeros((rows, length), jnp.int32) if starts is None else jnp.asarray(starts)
        if target_platform() != "cpu":
            return cls(starts, head=head)
        tokens = head + rows * length
        first = head + jnp.arange(rows)[:, None] * length
        starts = jnp.where(starts < length, first + starts, tokens).reshape(-1)
        starts = jnp.concatenate([jnp.zeros(head, starts.dtype), starts])
        blocks = -(-max(longest or length, head) // BLOCK)
        offset = jnp.arange(tokens) - starts
        number = jnp.where((offset >= 0) & (offset % BLOCK == 0), offset // BLOCK, blocks)
        order = jnp.argsort(number)
        return cls(starts, order, jnp.searchsorted(number[order], jnp.arange(blocks + 1)), head)


def causal_attention(
    query: Float[Array, "tokens kv group head_dim"],
    keys: Float[Array, "kv tokens head_dim"],
    values: Float[Array, "kv tokens head_dim"],
    spans: Spans,
    prefix: tuple[Float[Array, "kv shared head_dim"], Float[Array, "kv shared head_dim"]] | None = None,
    window: int | None = None,
) -> Float[Array, "tokens kv group head_dim"]:
    """Causal attention of each example to itself and to the prefix; with `window`, at most to so many last tokens.

    The prefix is the head of the axis, or its keys and values are given. What comes out at padding means nothing. The
    backward pass computes the weights anew from the output and the softmax's normaliser, which a checkpoint policy may
    keep (KEPT).
    """
    head = spans.head
    none = (jnp.zeros((keys.shape[0], 0, keys.shape[2]), keys.dtype),) * 2
    if head:
        prefix = keys[:, :head], values[:, :head]
    shared = prefix or none
    if spans.order is not None:
        return _causal_attention(window, query, keys, values, *shared, spans)
    by_row = jax.vmap(partial(_causal_attention, window), in_axes=(0, 1, 1, None, None, 0))
    queries = query[head:].reshape(*spans.starts.shape, *query.shape[1:])
    own = (part[:, head:].reshape(part.shape[0], *spans.starts.shape, -1) for part in (keys, values))
    out = by_row(queries, *own, *shared, Spans(spans.starts)).reshape(-1, *query.shape[1:])
    if head:
        before = Spans(jnp.zeros(head, jnp.int32))
        out = jnp.concatenate([_causal_attention(window, query[:head], *shared, *none, before), out])
    return out


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _causal_attention(window, query, keys, values, shared_keys, shared_values, spans):
    return _attention_forward(window, query, keys, values, shared_keys, shared_values, spans)[0]


def _attention_forward(window, query, keys, values, shared_keys, shared_values, spans):
    def step(block, done):
        out, normaliser = done
        rows = block.rows(query)
        seen_keys, seen_values = block.seen(shared_keys, keys), block.seen(shared_values, values)
        score = jnp.where(block.mask, _scores(rows, seen_keys), -jnp.inf)
        top = score.max(axis=-1, keepdims=True)
        weights = jnp.exp(score - top)
        total = weights.sum(axis=-1, keepdims=True)
        found = _product("krn,knd->krd", weights.astype(values.dtype), seen_values) / total
        return block.put(out, found), block.put(normaliser, top + jnp.log(total))

    empty = jnp.zeros_like(query), jnp.zeros((*query.shape[:-1], 1), jnp.float32)
    out, normaliser = _each_block(step, empty, query, shared_keys, spans, window)
    out, normaliser = checkpoint_name(out, KEPT), checkpoint_name(normaliser, KEPT)
    return out, (query, keys, values, shared_keys, shared_values, spans, out, normaliser)


def _attention_backward(window, kept, d_out):
    query, keys, values, shared_keys, shared_values, spans, out, normaliser = kept
    mean = jnp.sum(d_out * out, axis=-1, keepdims=True, dtype=jnp.float32)

    def step(block, done):
        d_query, d_keys, d_values, d_shared_keys, d_shared_values = done
        rows = block.rows(query)
        seen_keys, seen_values = block.seen(shared_keys, keys), block.seen(shared_values, values)
        d_rows = block.rows(d_out)
        weights = jnp.exp(_scores(rows, seen_keys) - block.rows(normaliser))
        weights = jnp.where(block.mask, weights, 0.0)
        d_score = weights * (_product("krd,knd->krn", d_rows, seen_values) - block.rows(mean)) * rows.shape[-1] ** -0.5
        d_score, weights = d_score.astype(query.dtype), weights.astype(query.dtype)
        d_query = block.put(d_query, _product("krn,knd->krd", d_score, seen_keys))
        d_shared_keys, d_keys = block.add(d_shared_keys, d_keys, _product("krn,krd->knd", d_score, rows))
        d_shared_values, d_values = block.add(d_shared_values, d_values, _product("krn,krd->knd", weights, d_rows))
        return d_query, d_keys, d_values, d_shared_keys, d_shared_values

    like = (query, keys, values, shared_keys, shared_values)
    zeros = jnp.zeros_like(query), *(jnp.zeros(part.shape, jnp.float32) for part in like[1:])
    gradients = _each_block(step, zeros, query, shared_keys, spans, window)
    return *(gradient.astype(one.dtype) for gradient, one in zip(gradients, like, strict=True)), None


_causal_attention.defvjp(_attention_forward, _attention_backward)


@dataclass(frozen=True)
class _Block:
    """`real.size` queries from `at` on, the heads of a group as rows of one matrix, against the prefix and `reach` keys from `key_at` on.

    `real` says which queries belong to it: the others, of the next example or of a block before, see nothing and keep what they have.
    """

    at: int | Int[Array, ""]
    key_at: int | Int[Array, ""]
    reach: int
    real: Bool[Array, " size"]
    mask: Bool[Array, "rows shared+reach"]

    def rows(self, part: Float[Array, "tokens kv group width"]) -> Float[Array, "kv rows width"]:
        """The block's part of an array over all tokens."""
        mine = jax.lax.dynamic_slice_in_dim(part, self.at, self.real.size)
        return jnp.moveaxis(mine, 1, 0).reshape(part.shape[1], -1, part.shape[-1])

    def put(self, whole: Float[Array, "tokens kv group width"], found: Float[Array, "kv rows width"]):
        """`whole` with what was found for the block's own queries."""
        found = jnp.moveaxis(found.reshape(whole.shape[1], self.real.size, *whole.shape[2:]), 0, 1)
        before = jax.lax.dynamic_slice_in_dim(whole, self.at, self.real.size)
        mine = jnp.where(self.real[:, None, None, None], found.astype(whole.dtype), before)
        return jax.lax.dynamic_update_slice_in_dim(whole, mine, self.at, axis=0)

    def seen(self, shared: Float[Array, "kv shared head_dim"], own: Float[Array, "kv tokens head_dim"]):
        """The prefix's keys or values, then those within reach."""
        return jnp.concatenate([shared, jax.lax.dynamic_slice_in_dim(own, self.key_at, self.reach, axis=1)], axis=1)

    def add(self, shared, own, gradient: Float[Array, "kv shared+reach head_dim"]):
        """The sums `shared` and `own` over all keys, with what this block adds to those that it sees."""
        size = shared.shape[1]
        mine = jax.lax.dynamic_slice_in_dim(own, self.key_at, self.reach, axis=1) + gradient[:, size:]
        return shared + gradient[:, :size], jax.lax.dynamic_update_slice_in_dim(own, mine, self.key_at, axis=1)


def _each_block(
    step: Callable[[_Block, PyTree], PyTree], done: PyTree, query, shared, spans: Spans, window: int | None
) -> PyTree:
    """`step` of one block after the other, which is given what all before it have `done`."""
    tokens, group, size = query.shape[0], query.shape[2], shared.shape[1]
    width = min(BLOCK, tokens)

    def block(at, key_at, reach: int, real) -> _Block:
        place, own = at + jnp.arange(real.size), key_at + jnp.arange(reach)
        starts = jnp.minimum(jax.lax.dynamic_slice_in_dim(spans.starts, at, real.size), place)  # padding sees itself
        place, first = (jnp.repeat(part, group)[:, None] for part in (place, starts))
        key = jnp.concatenate([jnp.arange(-size, 0), own])
        mask = sees(place, first, key, window) & ((key >= 0) | (first >= spans.head))  # the prefix itself has none
        return _Block(at, key_at, reach, real, mask & jnp.repeat(real, group)[:, None])

    order, bounds = spans.order, spans.bounds
    if order is None or bounds is None:
        for at in range(0, tokens, BLOCK):
            reach = min(at + BLOCK, tokens)
            done = step(block(at, 0, reach, jnp.ones(reach - at, bool)), done)
        return done
    for number in range(bounds.size - 1):
        reach = min(BLOCK * (number + 1), tokens)

        def one(i, done, reach=reach):
            begin = order[i]
            at, start = jnp.minimum(begin, tokens - width), spans.starts[begin]
            mine = jax.lax.dynamic_slice_in_dim(spans.starts, at, width) == start
            real = mine & (at + jnp.arange(width) >= begin)
            return step(block(at, jnp.minimum(start, tokens - reach), reach, real), done)

        done = jax.lax.fori_loop(bounds[number], bounds[number + 1], one, done)
    return done


def sees(
    place: Int[Array, "queries 1"], first: Int[Array, "queries 1"], key: Int[Array, " keys"], window: int | None
) -> Bool[Array, "queries keys"]:
    """Whether the query at each place, whose example begins at `first`, sees each key; the prefix's keys are at …, -2, -1.

    The prefix ends right before the example's first token, wherever that stands.
    """
    mask = (key < 0) | ((key <= place) & (key >= first))
    if window is not None:
        mask &= jnp.where(key < 0, place - first - key, place - key) < window
    return mask


def _scores(rows, keys):
    return _product("krd,knd->krn", rows, keys) * rows.shape[-1] ** -0.5


def _product(pattern: str, *parts):
    return jnp.einsum(pattern, *parts, preferred_element_type=jnp.float32)
