"""Rotary position embeddings in Hugging Face's layout (rotate halves)."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from kdjax.student.rope_config import RopeConfig


def inverse_frequencies(rope: RopeConfig, head_dim: int) -> np.ndarray:
    """Angle per position of each rotated pair, [head_dim / 2] float64, as transformers' modeling_rope_utils.py has them."""
    frequencies = rope.theta ** (-np.arange(0, head_dim, 2) / head_dim)
    match rope.type:
        case "default":
            return frequencies
        case "linear":
            return frequencies / rope.factor
        case "llama3":
            kept = _llama3_share(rope, frequencies)
        case "yarn":
            kept = _yarn_share(rope, head_dim)
    return kept * frequencies + (1 - kept) * frequencies / rope.factor


def _llama3_share(rope: RopeConfig, frequencies: np.ndarray) -> np.ndarray:
    """How much of each frequency stays: 1 where many turns fit into the original length, 0 where few do, a blend between."""
    turns = rope.original_max_position_embeddings * frequencies / (2 * math.pi)
    return np.clip((turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor), 0.0, 1.0)


def _yarn_share(rope: RopeConfig, head_dim: int) -> np.ndarray:
    """As `_llama3_share`, but the blend is linear in the pair's index (arXiv 2309.00071, section 3.2)."""

    def index(turns: float) -> float:  # of the pair that makes so many turns over the original length
        length = rope.original_max_position_embeddings
        return head_dim * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = index(rope.beta_fast), index(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    return 1 - np.clip((np.arange(head_dim // 2) - low) / ((high - low) or 0.001), 0.0, 1.0)


def rope_tables(
    rope: RopeConfig, head_dim: int, positions: Int[Array, " tokens"]
) -> tuple[Float[Array, "tokens half"], Float[Array, "tokens half"]]:
    """cos and sin of each position, float32; scaled by YaRN's attention factor."""
    angles = positions.astype(jnp.float32)[:, None] * jnp.asarray(inverse_frequencies(rope, head_dim), jnp.float32)
    return jnp.cos(angles) * rope.attention_factor, jnp.sin(angles) * rope.attention_factor


def rotate(
    x: Float[Array, "tokens heads head_dim"], cos: Float[Array, "tokens half"], sin: Float[Array, "tokens half"]
) -> Float[Array, "tokens heads head_dim"]:
    """Rotate the pairs (i, i + head_dim/2) of each head by its position's angle."""
    first, second = jnp.split(x, 2, axis=-1)
    cos, sin = cos[:, None, :].astype(x.dtype), sin[:, None, :].astype(x.dtype)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
