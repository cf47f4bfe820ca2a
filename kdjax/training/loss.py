"""The losses: of target tokens, of which only the positions asked for ever meet the vocabulary; and of pairs of products."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from kdjax.student import Decoder, pair_logits
from kdjax.student.dropout import Dropout
from kdjax.training.rows import PairRows, ProductRows, Rows

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
    nll = top + jnp.log(total) - jnp.sum(hidden.astype(jnp.float32) * own, axis=-1)
    return nll, (mean / total[:, None] - own).astype(hidden.dtype)


def _backward(gradient, cotangent):
    return (cotangent[:, None] * gradient.astype(cotangent.dtype)).astype(gradient.dtype), None, None


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
    decoder, masks = nnx.merge(graph, adapter, base), _masks(dropout, rows, prefix)
    hidden = decoder(rows.tokens, prefix, masks, remat, rows.starts, rows.longest)
    picked = jnp.take_along_axis(hidden, rows.positions[..., None], axis=1)
    nll = target_nll(picked.reshape(-1, picked.shape[-1]), decoder.head, rows.labels.reshape(-1))
    return nll.reshape(rows.labels.shape) * rows.weights


def pair_losses(
    graph: nnx.GraphDef,
    trained: dict,
    base: dict,
    prefix: Int[Array, " prefix"],
    rows: PairRows,
    dropout: tuple[float, PRNGKeyArray] | None = None,
    remat: str = "linears",
    *,
    layers: int,
) -> Float[Array, "batch pairs"]:
    """Each pair's binary cross-entropy, 0 at padding. `trained` is {"adapter", "head"}; the head reads the states
    behind `layers` layers."""
    decoder, masks = nnx.merge(graph, trained["adapter"], base), _masks(dropout, rows, prefix)
    states = product_states(decoder, prefix, rows, layers, masks, remat)
    logits = jax.vmap(partial(pair_logits, trained["head"]))(states, rows.first, rows.second)
    return optax.sigmoid_binary_cross_entropy(logits, rows.labels) * rows.weights


def product_states(
    decoder: Decoder,
    prefix: Int[Array, " prefix"],
    rows: ProductRows,
    layers: int,
    masks: Dropout | None = None,
    remat: str = "none",
) -> Float[Array, "batch most fields hidden"]:
    """Each product's states: of each field the mean over its tokens of the hidden states behind so many layers,
    float32; 0 of an empty one."""
    hidden = decoder.hidden(layers, rows.tokens, prefix, masks, remat, rows.starts, rows.longest)
    belongs = (rows.parts[:, None, :] == jnp.arange(rows.most * rows.fields)[:, None]).astype(hidden.dtype)
    sums = jnp.einsum("bpl,blh->bph", belongs, hidden, precision="highest", preferred_element_type=jnp.float32)
    means = sums / jnp.maximum(belongs.sum(axis=-1, dtype=jnp.float32), 1.0)[..., None]
    return means.reshape(len(means), rows.most, rows.fields, -1)


def _masks(dropout: tuple[float, PRNGKeyArray] | None, rows: Rows | ProductRows, prefix) -> Dropout | None:
    if dropout is None or dropout[0] == 0:
        return None
    return Dropout.of_step(*dropout, rows.ids, rows.starts, prefix.shape[0])


@dataclass(frozen=True)
class Objective:
    """What is trained for: the kind of rows that ask it, and the losses of each thing asked, as `token_losses` gives them."""

    rows: type[Rows | ProductRows]
    losses: Callable[..., Float[Array, "batch asked"]]


TEXT = Objective(Rows, token_losses)


def pairs(layers: int) -> Objective:
    """Which products belong together, read behind so many layers."""
    return Objective(PairRows, partial(pair_losses, layers=layers))
