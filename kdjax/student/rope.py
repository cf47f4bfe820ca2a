"""Rotary position embeddings in Hugging Face's layout (rotate halves)."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from kdjax.student.families import RopeConfig


def inverse_frequencies(rope: RopeConfig, head_dim: int) -> np.ndarray:
    """Angle per position of each rotated pair, [head_dim / 2] float64.

    "llama3" slows the low frequencies by `factor` and blends in between (transformers, modeling_rope_utils.py,
    _compute_llama3_parameters).
    """
    frequencies = rope.theta ** (-np.arange(0, head_dim, 2) / head_dim)
    if rope.type == "default":
        return frequencies
    wavelengths = 2 * math.pi / frequencies
    original, low, high = rope.original_max_position_embeddings, rope.low_freq_factor, rope.high_freq_factor
    smooth = np.clip((original / wavelengths - low) / (high - low), 0.0, 1.0)
    return (1 - smooth) * frequencies / rope.factor + smooth * frequencies


def rope_tables(
    rope: RopeConfig, head_dim: int, positions: Int[Array, " tokens"]
) -> tuple[Float[Array, "tokens half"], Float[Array, "tokens half"]]:
    """cos and sin of each position, float32."""
    angles = positions.astype(jnp.float32)[:, None] * jnp.asarray(inverse_frequencies(rope, head_dim), jnp.float32)
    return jnp.cos(angles), jnp.sin(angles)


def rotate(
    x: Float[Array, "tokens heads head_dim"], cos: Float[Array, "tokens half"], sin: Float[Array, "tokens half"]
) -> Float[Array, "tokens heads head_dim"]:
    """Rotate the pairs (i, i + head_dim/2) of each head by its position's angle."""
    first, second = jnp.split(x, 2, axis=-1)
    cos, sin = cos[:, None, :].astype(x.dtype), sin[:, None, :].astype(x.dtype)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
