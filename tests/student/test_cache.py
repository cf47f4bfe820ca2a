"""What decoding remembers, written at once for all rows, against row by row."""

from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.student.cache import Cache

LAYERS, KV, WIDTH, STEPS = 3, 2, 8, 9
CONFIG = SimpleNamespace(num_hidden_layers=LAYERS, num_key_value_heads=KV, head_dim=WIDTH)


def row_by_row(cache: Cache, new, count):
    """The same by a loop over rows, which some TPU compilers reject from 48 rows on."""

    def put(row, kept):
        keys, values = (jax.lax.dynamic_slice_in_dim(part, row, 1, axis=2) for part in new)
        at = cache.filled[row]
        return (
            jax.lax.dynamic_update_slice(kept[0], jnp.swapaxes(keys, -1, -2), (0, 0, row, 0, at)),
            jax.lax.dynamic_update_slice(kept[1], values, (0, 0, row, at, 0)),
        )

    generated = jax.lax.fori_loop(0, cache.filled.size, put, cache.generated)
    return replace(cache, generated=generated, filled=cache.filled + count)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("tokens", [1, 2])
@pytest.mark.parametrize("rows", [1, 5, 64])
def test_all_rows_at_once_is_row_by_row(rows, tokens, dtype):
    """Bit for bit, over several calls; the last ones begin so late that they would not fit, and are moved to the end."""
    rng = np.random.default_rng(0)
    cache = Cache.empty(CONFIG, rows, 4, STEPS, dtype)
    at_once = one_by_one = replace(cache, filled=jnp.asarray(rng.integers(0, 3, rows), jnp.int32))
    extend, loop = jax.jit(Cache.extend), jax.jit(row_by_row)
    for _ in range(STEPS):
        new = tuple(jnp.asarray(rng.normal(size=(LAYERS, KV, rows, tokens, WIDTH)), dtype) for _ in range(2))
        count = jnp.asarray(rng.integers(1, tokens + 1, rows), jnp.int32)
        at_once, one_by_one = extend(at_once, new, count), loop(one_by_one, new, count)
        jax.tree.map(np.testing.assert_array_equal, at_once, one_by_one)
    assert int(at_once.filled.max()) > STEPS


def test_what_was_not_counted_is_overwritten():
    """Two tokens are given, one counts; the next call puts its own in the second's place."""
    cache = Cache.empty(CONFIG, 1, 4, STEPS, jnp.float32)
    first, second = (tuple(jnp.full((LAYERS, KV, 1, 2, WIDTH), value) for _ in range(2)) for value in (1.0, 2.0))
    one = jnp.ones(1, jnp.int32)
    keys, values = cache.extend(first, one).extend(second, one).generated
    assert keys[0, 0, 0, 0, :4].tolist() == values[0, 0, 0, :4, 0].tolist() == [1, 2, 2, 0]
