"""The loss: summed negative log-likelihood of target tokens; only target positions ever meet the vocabulary."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from kdjax.student.dropout import Dropout
from kdjax.training.batches import Rows

TILE = 2048  # words of the vocabulary whose logits exist at one time


@jax.custom_vjp
def target_nll(
    hidden: Float[Array, "targets hidden"], head: Float[Array, "vocab hidden"], labels: Int[Array, " targets"]
) -> Float[Array, " targets"]:
    """-log softmax(hidden headᵀ)[label] of each target, float32, tile by tile of the vocabulary: memory does not grow with it.

    The head is frozen: its gradient is not computed (a None cotangent), and the gradient towards `hidden`,
    (softmax - onehot) head, is summed up beside the normaliser, as attention is in arXiv 2205.14135.
    """
    return _forward(hidden, head, labels)[0]


def _forward(hidden, head, labels):
    vocab, tile = head.shape[0], min(TILE, head.shape[0])

    def add(sums, start):
        top, total, mean = sums
        begin = jnp.minimum(start, vocab - tile)  # the last tile begins earlier where it would not be full
        words = jax.lax.dynamic_slice_in_dim(head, begin, tile)
        logits = jnp.matmul(hidden, words.T, preferred_element_type=jnp.float32)
        if vocab % tile:
            logits = jnp.where(begin + jnp.arange(tile) >= start, logits, -jnp.inf)
        higher = jnp.maximum(top, logits.max(axis=-1))
        weights, shrunk = jnp.exp(logits - higher[:, None]), jnp.exp(top - higher)
        mean = mean * shrunk[:, None] + jnp.matmul(
            weights.astype(words.dtype), words, preferred_element_type=jnp.float32
        )
        return (higher, total * shrunk + weights.sum(axis=-1), mean), None

    count = hidden.shape[0]
    empty = jnp.full(count, -jnp.inf), jnp.zeros(count), jnp.zeros(hidden.shape, jnp.float32)
    (top, total, mean), _ = jax.lax.scan(add, empty, jnp.arange(0, vocab, tile))
    own = head[labels].astype(jnp.float32)
    nll = top + jnp.log(total) - jnp.sum(hidden * own, axis=-1, dtype=jnp.float32)
    return nll, (mean / total[:, None] - own).astype(hidden.dtype)


def _backward(gradient, cotangent):
    return (cotangent[:, None] * gradient).astype(gradient.dtype), None, None


target_nll.defvjp(_forward, _backward)


def token_losses(
    graph: nnx.GraphDef,
    adapter: dict,
    base: dict,
    prefix: Int[Array, " prefix"],
    rows: Rows,
    dropout: tuple[float, PRNGKeyArray] | None = None,
    remat: str = "linears",
) -> Float[Array, "batch targets"]:
    """Each target's negative log-likelihood, 0 at padding. `dropout` is (rate, the step's key), `remat` one of the student's REMAT."""
    decoder = nnx.merge(graph, adapter, base)
    masks = None
    if dropout is not None and dropout[0] > 0:
        masks = Dropout.of_step(*dropout, rows.ids, rows.starts, prefix.shape[0])
    hidden = decoder(rows.tokens, prefix, masks, remat, rows.starts, rows.longest)
    picked = jnp.take_along_axis(hidden, rows.positions[..., None], axis=1)
    nll = target_nll(picked.reshape(-1, picked.shape[-1]), decoder.head, rows.labels.reshape(-1))
    return nll.reshape(rows.labels.shape) * rows.weights
