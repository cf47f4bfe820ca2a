import jax
import jax.numpy as jnp

from kdjax.training.clock import compile_seconds


def test_only_compilation_counts():
    function, x = jax.jit(lambda x: jnp.tanh(x) * 3), jnp.ones(17)
    before = compile_seconds()
    function(x)
    compiled = compile_seconds()
    assert compiled > before
    function(x)
    assert compile_seconds() == compiled
