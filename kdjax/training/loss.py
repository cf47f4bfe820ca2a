"""The loss: summed negative log-likelihood of target tokens; only target positions ever meet the vocabulary."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from kdjax.student.dropout import Dropout
from kdjax.training.batches import Rows

CHUNK = 128  # target positions whose logits exist at one time


@jax.custom_vjp
def target_nll(
    hidden: Float[Array, "targets hidden"], head: Float[Array, "vocab hidden"], labels: Int[Array, " targets"]
) -> Float[Array, " targets"]:
    """-log softmax(hidden headᵀ)[label] of each target, float32, in chunks so that memory does not grow with targets × vocab.

    The head is frozen: its gradient is not computed (a None cotangent), and the gradient towards `hidden`,
    (softmax - onehot) head, is taken in the forward pass while the logits are there.
    """
    return _by_chunk(hidden, head, labels, with_gradient=False)[0]


def _forward(hidden, head, labels):
    return _by_chunk(hidden, head, labels, with_gradient=True)


def _backward(gradient, cotangent):
    return (cotangent[:, None] * gradient).astype(gradient.dtype), None, None


target_nll.defvjp(_forward, _backward)


def _by_chunk(hidden, head, labels, with_gradient: bool):
    count, width = hidden.shape
    chunk = min(CHUNK, count)
    short = -count % chunk
    hidden_chunks = jnp.pad(hidden, ((0, short), (0, 0))).reshape(-1, chunk, width)
    label_chunks = jnp.pad(labels, (0, short)).reshape(-1, chunk)

    def one(inputs):
        h, label = inputs
        logits = jnp.matmul(h, head.T, preferred_element_type=jnp.float32)
        normaliser = jax.nn.logsumexp(logits, axis=-1)
        nll = normaliser - jnp.take_along_axis(logits, label[:, None], axis=-1)[:, 0]
        if not with_gradient:
            return nll, None
        probabilities = jnp.exp(logits - normaliser[:, None])
        gradient = probabilities.astype(head.dtype) @ head - head[label]
        return nll, gradient.astype(h.dtype)

    nll, gradient = jax.lax.map(one, (hidden_chunks, label_chunks))
    return nll.reshape(-1)[:count], None if gradient is None else gradient.reshape(-1, width)[:count]


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
    hidden = decoder(rows.tokens, prefix, masks, remat, rows.starts)
    picked = jnp.take_along_axis(hidden, rows.positions[..., None], axis=1)
    nll = target_nll(picked.reshape(-1, picked.shape[-1]), decoder.head, rows.labels.reshape(-1))
    return nll.reshape(rows.labels.shape) * rows.weights
