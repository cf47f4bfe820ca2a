"""Padding, causality, the shared prefix and the cache change how logits are computed, never what they are."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.student.attention import BLOCK
from kdjax.student.cache import Cache

ROWS, LENGTH = 3, 140  # longer than one block of queries
TOLERANCE = {"rtol": 0, "atol": 2e-5}


@pytest.fixture(scope="module")
def tokens() -> np.ndarray:
    assert LENGTH > BLOCK
    return np.random.default_rng(0).integers(3, 259, (ROWS, 280)).astype(np.int32)


@pytest.fixture(scope="module")
def hidden(tiny):
    """Hidden states of plain rows [batch, seq] → [batch, seq, hidden]."""
    forward = jax.jit(lambda tokens: tiny.merge(tiny.adapter, tiny.base)(tokens))
    return lambda tokens: np.asarray(forward(jnp.asarray(tokens)))


@pytest.fixture(scope="module")
def behind(tiny):
    """Hidden states of rows behind a prefix."""
    forward = jax.jit(lambda tokens, prefix: tiny.merge(tiny.adapter, tiny.base)(tokens, prefix))
    return lambda tokens, prefix: np.asarray(forward(jnp.asarray(tokens), jnp.asarray(prefix)))


# Padding and causality


def test_padding_cannot_change_logits(tiny, tokens):
    rows, lengths = tokens[:, :LENGTH], np.array([LENGTH, 33, 1])
    logits = np.asarray(tiny.logits(rows, lengths))
    other = rows.copy()
    for row, length in enumerate(lengths):
        other[row, length:] = (other[row, length:] + 100) % 259
    np.testing.assert_array_equal(logits, tiny.logits(other, lengths))
    full = np.asarray(tiny.logits(rows))
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(logits[row, :length], full[row, :length], **TOLERANCE)
        assert not logits[row, length:].any(), "logits at padding are 0"


def test_a_padded_row_equals_the_short_row(tiny, tokens):
    padded = np.asarray(tiny.logits(tokens[:, :LENGTH], np.full(ROWS, 33)))
    np.testing.assert_allclose(padded[:, :33], tiny.logits(tokens[:, :33]), **TOLERANCE)


@pytest.mark.parametrize("position", [0, 1, BLOCK - 1, BLOCK, LENGTH - 1])
def test_a_token_changes_its_own_and_later_positions_only(tiny, tokens, position):
    rows = tokens[:, :LENGTH]
    changed = rows.copy()
    changed[0, position] = (changed[0, position] + 7) % 259
    before, after = np.asarray(tiny.logits(rows)), np.asarray(tiny.logits(changed))
    np.testing.assert_array_equal(before[0, :position], after[0, :position])
    np.testing.assert_array_equal(before[1:], after[1:])
    assert (np.abs(before[0, position:] - after[0, position:]).max(axis=-1) > 1e-4).all()


# The shared prefix


@pytest.mark.parametrize("size", [1, 7, 130])
def test_rows_behind_a_shared_prefix_equal_plain_rows(hidden, behind, tokens, size):
    prefix = tokens[0, :size]
    plain = tokens.copy()
    plain[:, :size] = prefix
    rows = plain[:, size : size + LENGTH]
    np.testing.assert_allclose(behind(rows, prefix), hidden(plain)[:, size : size + LENGTH], **TOLERANCE)


def test_an_empty_prefix_is_the_plain_case(hidden, behind, tokens):
    np.testing.assert_array_equal(behind(tokens, np.zeros(0, np.int32)), hidden(tokens))


# The cache


@pytest.mark.parametrize("packed", [True, False], ids=["one row", "a row each"])
@pytest.mark.parametrize("most", [1, 2])
@pytest.mark.parametrize("size", [0, 7])
def test_decoding_step_by_step_equals_the_full_forward(tiny, hidden, tokens, size, most, packed):
    """Rows of different lengths: each goes on right behind its own last token, not behind the padding, by at most `most`."""
    lengths, steps, width = np.array([20, 9, 1]), 12, 24
    prefix = jnp.asarray(tokens[0, :size]) if size else None
    full = tokens.copy()  # what each row is once it is written out: prefix, prompt, generated tokens
    full[:, :size] = tokens[0, :size]
    prompts = np.full((ROWS, width), 5, np.int32)
    for row, length in enumerate(lengths):
        prompts[row, :length] = full[row, size : size + length]
    expected = hidden(full)

    decoder = tiny.merge(tiny.adapter, tiny.base)
    read = jax.jit(decoder.read_prefix)(prefix) if size else None
    everyone = np.arange(ROWS)
    if packed:  # one row, the prompts one after the other
        first = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        rows = np.concatenate([prompts[row, :length] for row, length in enumerate(lengths)])[None]
        starts = np.repeat(first, lengths)[None]
    else:
        first, rows, starts = everyone * width, prompts, None
    prefill = jax.jit(lambda rows, last, prefix: decoder.prefill(rows, last, prefix, starts, width))
    last, read_prompts = prefill(rows, first + lengths - 1, read)
    cache = replace(Cache.empty(tiny.config, ROWS + 1, width, steps + most, jnp.float32), prefix=read)
    slots = jnp.array([2, 0, 3])  # any will do; slot 1 stays empty
    cache = jax.jit(Cache.admit)(cache, read_prompts, jnp.asarray(first), jnp.asarray(lengths), slots)
    cache = cache.keep(slots)
    decode, rng = jax.jit(decoder.decode), np.random.default_rng(1)
    np.testing.assert_allclose(last, expected[everyone, size + lengths - 1], **TOLERANCE)
    position = size + lengths
    for step in range(steps // most):
        count = rng.integers(1, most + 1, ROWS).astype(np.int32)
        new = full[everyone[:, None], position[:, None] + np.arange(most)]
        new[np.arange(most) >= count[:, None]] = 3  # what stands behind a row's own tokens must not matter
        last, fresh = decode(jnp.asarray(new), jnp.asarray(count), cache)
        cache = cache.extend(fresh, jnp.asarray(count))
        position = position + count
        np.testing.assert_allclose(last, expected[everyone, position - 1], err_msg=f"step {step}", **TOLERANCE)
    np.testing.assert_array_equal(size + cache.next_position, position)
