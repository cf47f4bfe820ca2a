"""Attention against the textbook's: over all keys at once, with one mask."""

from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import on

from kdjax.student.attention import BLOCK, Spans, causal_attention

KV, GROUP, WIDTH = 2, 3, 8


def plain(query, keys, values, shared_keys, shared_values, starts, window):
    """[tokens, kv, group, width]; the prefix stands right before each example."""
    size, tokens = shared_keys.shape[1], len(starts)
    keys, values = (jnp.concatenate(pair, 1) for pair in ((shared_keys, keys), (shared_values, values)))
    place, first = np.arange(tokens)[:, None], np.asarray(starts)[:, None]
    seen = np.concatenate([first - size + np.arange(size), np.tile(np.arange(tokens), (tokens, 1))], 1)
    mask = np.concatenate([np.ones((tokens, size), bool), (seen[:, size:] <= place) & (seen[:, size:] >= first)], 1)
    if window is not None:
        mask &= place - seen < window
    score = jnp.einsum("tkgd,knd->kgtn", query, keys) * WIDTH**-0.5
    return jnp.einsum("kgtn,knd->tkgd", jax.nn.softmax(jnp.where(mask, score, -jnp.inf), axis=-1), values)


def row_of(sizes, padding):
    """Where each token's example begins, the row's length for padding."""
    starts = np.repeat(np.cumsum([0, *sizes[:-1]]), sizes)
    length = len(starts) + padding
    return np.concatenate([starts, np.full(padding, length)]).astype(np.int32)


@pytest.mark.parametrize("prefix", [0, 21])
@pytest.mark.parametrize("window", [None, 40])
@pytest.mark.parametrize(
    "rows",
    [
        [row_of((5, 1, 40), 7)],
        [row_of((BLOCK, 2 * BLOCK + 3, 7, BLOCK + 1), 0), row_of((3 * BLOCK,), 139)],
        [row_of((2 * BLOCK + 1,), 0)],
    ],
    ids=["less than a block", "two rows", "one example"],
)
def test_attention_is_that_of_each_example_alone(rows, window, prefix):
    """Both ways through the blocks (a CPU's, and that of devices with many cores): output and all gradients."""
    rng = np.random.default_rng(0)
    count, length = len(rows), len(rows[0])
    tokens = count * length
    starts = np.concatenate([np.where(row < length, row + i * length, tokens) for i, row in enumerate(rows)])
    real = (starts < tokens)[:, None, None, None]
    shapes = (tokens, KV, GROUP, WIDTH), *((KV, n, WIDTH) for n in (tokens, tokens, prefix, prefix))
    parts = [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]
    d_out = jnp.asarray(np.where(real, rng.normal(size=shapes[0]), 0.0), jnp.float32)
    longest = max(np.unique(row[row < length], return_counts=True)[1].max() for row in rows)

    def both(attention):
        out, pullback = jax.vjp(attention, *parts)
        return [np.where(real, out, 0.0), *pullback(d_out)]

    want = both(lambda *parts: jnp.where(real, plain(*parts, np.minimum(starts, np.arange(tokens)), window), 0.0))
    with on("cpu"):
        blockwise = Spans.of(count, length, jnp.stack(rows), int(longest))
    for spans in (blockwise, Spans(jnp.stack(rows))):
        found = both(
            lambda query, keys, values, *shared, spans=spans: causal_attention(
                query, keys, values, spans, shared, window
            )
        )
        for one, other in zip(found, want, strict=True):
            np.testing.assert_allclose(one, other, atol=2e-5)


@pytest.mark.parametrize("head", [3, BLOCK + 9])
@pytest.mark.parametrize("window", [None, 40])
def test_the_prefix_may_stand_at_the_head_of_the_axis(head, window):
    """As if it were computed alone, and its keys and values given: output and all gradients, both ways through the blocks."""
    rng = np.random.default_rng(1)
    row = row_of((5, BLOCK + 30, 1), 6)
    tokens = head + len(row)
    query, keys, values, d_out = (
        jnp.asarray(rng.normal(size=shape), jnp.float32)
        for shape in ((tokens, KV, GROUP, WIDTH), (KV, tokens, WIDTH), (KV, tokens, WIDTH), (tokens, KV, GROUP, WIDTH))
    )
    real = np.concatenate([np.ones(head, bool), row < len(row)])[:, None, None, None]
    d_out = jnp.where(real, d_out, 0.0)

    def both(attention):
        out, pullback = jax.vjp(attention, query, keys, values)
        return [np.where(real, out, 0.0), *pullback(d_out)]

    def apart(query, keys, values):
        prefix = keys[:, :head], values[:, :head]
        first = causal_attention(query[:head], *prefix, Spans.of(1, head), window=window)
        spans = Spans.of(1, len(row), jnp.asarray(row)[None])
        rest = causal_attention(query[head:], keys[:, head:], values[:, head:], spans, prefix, window)
        return jnp.concatenate([first, rest])

    with on("cpu"):
        want = both(apart)
        blockwise = Spans.of(1, len(row), jnp.asarray(row)[None], BLOCK + 30, head)
    for spans in (blockwise, Spans(jnp.asarray(row)[None], head=head)):
        found = both(lambda *parts, spans=spans: causal_attention(*parts, spans, window=window))
        for one, other in zip(found, want, strict=True):
            np.testing.assert_allclose(one, other, atol=2e-5)


def test_rows_of_one_example_each_need_no_starts():
    with on("cpu"):
        spans = Spans.of(3, 200)
    assert np.unique(spans.starts).tolist() == [0, 200, 400]
    assert [spans.order[slice(*spans.bounds[i : i + 2])].tolist() for i in range(2)] == [[0, 200, 400], [128, 328, 528]]


@pytest.mark.parametrize("platform", ["gpu", "tpu", None])
def test_only_a_cpu_goes_from_block_to_block(platform):
    """The devices decide that a program is traced for, not the backend that JAX has here: a CPU."""
    with on(platform) if platform else nullcontext():
        spans = Spans.of(3, 200)
    assert spans.order is None and spans.starts.shape == (3, 200)
