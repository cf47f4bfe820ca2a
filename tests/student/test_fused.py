"""cuDNN's attention, as far as a CPU can tell: its mathematics by XLA, and that JAX makes a call of cuDNN's kernel of it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo

from kdjax.errors import InputError
from kdjax.student import load_student
from kdjax.student.attention import Spans, causal_attention
from kdjax.student.fused import fused_attention, takes

KV, GROUP, WIDTH = 2, 3, 8
ROWS = {  # the sizes of each row's examples, and its padding
    "several examples": [((5, 1, 50), 8), ((31, 33), 0), ((64,), 0)],
    "more than a block": [((200, 60), 4)],
}


def starts_of(rows):
    """Where in the row each token's example begins, the row's length for padding."""
    found = []
    for sizes, padding in rows:
        starts = np.repeat(np.cumsum([0, *sizes[:-1]]), sizes)
        found.append(np.concatenate([starts, np.full(padding, len(starts) + padding)]))
    return jnp.asarray(np.stack(found), jnp.int32)


def both(attention, d_out, *parts):
    """The output at real tokens, and all gradients."""
    out, pullback = jax.vjp(attention, *parts)
    return [np.where(d_out == 0, 0.0, out), *pullback(d_out)]


def drawn(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


@pytest.mark.parametrize("prefix", [0, 21])
@pytest.mark.parametrize("window", [None, 40])
@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS.keys())
def test_it_is_our_own_attention(rows, window, prefix):
    starts = starts_of(rows)
    tokens = starts.size
    query, keys, values, *shared, d_out = drawn(
        [
            (tokens, KV, GROUP, WIDTH),
            *[(KV, n, WIDTH) for n in (tokens, tokens, prefix, prefix)],
            (tokens, KV, GROUP, WIDTH),
        ]
    )
    real = (starts < starts.shape[1]).reshape(-1, 1, 1, 1)
    found, want = (
        both(
            lambda query, keys, values, *shared, attend=attend: attend(
                query, keys, values, Spans(starts), shared, window
            ),
            jnp.where(real, d_out, 0.0),
            *(query, keys, values, *shared),
        )
        for attend in (partial(fused_attention, implementation="xla"), causal_attention)
    )
    for one, other in zip(found, want, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("head", [3, 140])
@pytest.mark.parametrize("window", [None, 40])
def test_the_prefix_may_stand_at_the_head_of_the_axis(head, window):
    starts = starts_of(ROWS["several examples"])
    tokens = head + starts.size
    query, keys, values, d_out = drawn(
        [(tokens, KV, GROUP, WIDTH), (KV, tokens, WIDTH), (KV, tokens, WIDTH), (tokens, KV, GROUP, WIDTH)]
    )
    real = np.concatenate([np.ones(head, bool), np.ravel(starts < starts.shape[1])])[:, None, None, None]
    found, want = (
        both(
            lambda *parts, attend=attend: attend(*parts, Spans(starts, head=head), None, window),
            jnp.where(real, d_out, 0.0),
            *(query, keys, values),
        )
        for attend in (partial(fused_attention, implementation="xla"), causal_attention)
    )
    for one, other in zip(found, want, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_shapes_that_cudnn_does_not_take_are_left_to_our_own():
    assert takes(64, 64) and takes(2, 128)
    assert not takes(63, 64) and not takes(64, 20) and not takes(64, 256)
    starts = starts_of([((7,), 0)])
    parts = drawn([(7, KV, GROUP, WIDTH), (KV, 7, WIDTH), (KV, 7, WIDTH)])
    np.testing.assert_array_equal(fused_attention(*parts, Spans(starts)), causal_attention(*parts, Spans(starts)))


@pytest.mark.parametrize("head", [0, 21])
@pytest.mark.parametrize("window", [None, 40])
def test_jax_makes_calls_of_cudnns_kernel_of_it(monkeypatch, head, window):
    """Lowered for CUDA, forward and backward: JAX accepts the shapes and the masks. Nothing is run."""
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(fused_attention_stablehlo, "check_compute_capability", lambda capability: True)
    starts = starts_of(ROWS["several examples"])
    tokens = head + starts.size
    parts = [jax.ShapeDtypeStruct((tokens, KV, GROUP, 64), jnp.bfloat16)]
    parts += [jax.ShapeDtypeStruct((KV, tokens, 64), jnp.bfloat16)] * 2

    def loss(query, keys, values):
        return fused_attention(query, keys, values, Spans(starts, head=head), None, window).sum(dtype=jnp.float32)

    lowered = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(*parts).lower(lowering_platforms=("cuda",))
    text = lowered.as_text()
    assert text.count("__cudnn$fmhaScaleBias") == 2  # of the rows, forward and backward


def test_it_is_refused_where_it_cannot_run():
    with pytest.raises(InputError, match="takes a GPU and dtype='bfloat16', and this is a cpu and 'bfloat16'"):
        load_student("tiny-random", dtype="bfloat16", attention="cudnn")
    with pytest.raises(InputError, match="choose from own, cudnn"):
        load_student("tiny-random", attention="flash")
