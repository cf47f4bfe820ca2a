"""The attention of whole examples by cuDNN's kernel: every row with the prefix before it, under a mask."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from kdjax.student.attention import Spans, causal_attention, sees

WIDEST = 128  # numbers of a head: what cuDNN takes on every GPU that it knows this attention for


def fused_attention(
    query: Float[Array, "tokens kv group head_dim"],
    keys: Float[Array, "kv tokens head_dim"],
    values: Float[Array, "kv tokens head_dim"],
    spans: Spans,
    prefix: tuple[Float[Array, "kv shared head_dim"], Float[Array, "kv shared head_dim"]] | None = None,
    window: int | None = None,
    implementation: str = "cudnn",
) -> Float[Array, "tokens kv group head_dim"]:
    """`causal_attention` by `jax.nn.dot_product_attention`, where its kernel `takes` the shapes; else that itself.

    "cudnn" has a backward pass of its own, and keeps its output and normaliser where no checkpoint policy can name them: with
    remat "linears" its forward pass is computed once more, from the queries, keys and values that are kept. "xla" computes
    the same, in any dtype and on any device, from all scores at once.
    """
    rows, length = spans.starts.shape
    _, kv, group, width = query.shape
    if not takes(length, width):
        return causal_attention(query, keys, values, spans, prefix, window)
    head = spans.head
    if head:
        prefix = keys[:, :head], values[:, :head]
    shared = prefix[0].shape[1] if prefix else 0
    spare = shared % 2  # a key that nobody sees, so that there is an even number

    def seen(number: int, part: Float[Array, "kv tokens head_dim"]) -> Float[Array, "rows seen kv head_dim"]:
        own = jnp.moveaxis(part[:, head:].reshape(kv, rows, length, width), 0, 2)
        if prefix is None:
            return own
        before = jnp.pad(jnp.moveaxis(prefix[number], 0, 1), ((spare, 0), (0, 0), (0, 0)))
        return jnp.concatenate([jnp.broadcast_to(before, (rows, *before.shape)), own], axis=1)

    attend = partial(jax.nn.dot_product_attention, implementation=implementation)
    queries = query[head:].reshape(rows, length, kv * group, width)
    mask = _mask(spans.starts, shared, spare, window)[:, None]
    out = attend(queries, seen(0, keys), seen(1, values), mask=mask).reshape(-1, kv, group, width)
    if head:  # the prefix itself, once for all rows, by our own: its length may be odd
        before = Spans(jnp.zeros((1, head), jnp.int32))
        out = jnp.concatenate(
            [causal_attention(query[:head], keys[:, :head], values[:, :head], before, None, window), out]
        )
    return out


def takes(length: int, width: int) -> bool:
    """Whether cuDNN's kernel takes rows of so many tokens and heads of so many numbers: under a mask, with gradients,
    an even number of tokens."""
    return length % 2 == 0 and width % 8 == 0 and width <= WIDEST


def _mask(
    starts: Int[Array, "rows length"], shared: int, spare: int, window: int | None
) -> Bool[Array, "rows length seen"]:
    """What each token of a row sees of the spare key, the prefix and its row."""
    place = jnp.arange(starts.shape[1])
    key = jnp.concatenate([jnp.arange(-shared - spare, 0), place])
    first = jnp.minimum(starts, place)  # padding sees itself
    mask = jax.vmap(lambda first: sees(place[:, None], first[:, None], key, window))(first)
    return mask & (key >= -shared)
