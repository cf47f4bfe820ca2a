"""Blockwise int8 and nf4 weights of the frozen base (QLoRA, arXiv 2305.14314), dequantised inside the layer that uses them.

Our own, not qwix: qwix rewrites a model's dot products by interception and keeps nf4 as 4-bit JAX arrays, which a CPU stores
as a byte each. Here a weight is two plain arrays that scan over layers, packed two to a byte on every device.
"""

from typing import TypeGuard

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from kdjax.errors import InputError
from kdjax.student.parameters import BaseParam

METHODS = ("int8", "nf4")
BLOCK = 64  # weights that share a scale, at most

# The 16 values of NF4: quantiles of a normal distribution, scaled to [-1, 1] (bitsandbytes, functional.py; paper, appendix E).
NF4 = np.array(
    [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
     -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
     0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0],
    np.float32,
)  # fmt: skip


class QuantizedWeight(nnx.Module):
    """A [*, out, in] weight as codes and one float32 scale per block of up to 64 inputs of a row.

    int8: codes [*, out, in], one byte per weight; nf4: codes [*, out, in/2], two per byte, the first of a pair in the high bits.
    """

    def __init__(self, method: str, shape: tuple[int, ...]):
        *rows, columns = shape
        kind, width = (jnp.int8, columns) if method == "int8" else (jnp.uint8, columns // 2)
        self.codes = BaseParam(jnp.zeros((*rows, width), kind))
        self.scales = BaseParam(jnp.zeros((*rows, columns // block_size(columns)), jnp.float32))

    def __call__(self, dtype) -> Float[Array, "out in"]:
        """The weight of one layer."""
        return dequantize(self.codes[...], self.scales[...]).astype(dtype)


def is_quantized(node: object) -> TypeGuard[dict[str, Array]]:
    """Whether a node of a parameter tree holds the two arrays of a `QuantizedWeight`."""
    return isinstance(node, dict) and node.keys() == {"codes", "scales"}


def method_of(leaf: dict) -> str:
    """The method by which a quantised weight is stored."""
    return "int8" if leaf["codes"].dtype == jnp.int8 else "nf4"


def shape_of(leaf: dict) -> tuple[int, ...]:
    """The shape of the weight that is stored."""
    *rows, width = leaf["codes"].shape
    return (*rows, width if method_of(leaf) == "int8" else 2 * width)


def dequantize(codes: Array, scales: Float[Array, "*rows blocks"]) -> Float[Array, "*rows in"]:
    """The weights, float32; bytes without a sign are pairs of nf4 codes."""
    if codes.dtype == jnp.uint8:
        pairs = jnp.stack([codes >> 4, codes & 15], axis=-1)
        values = jnp.asarray(NF4)[pairs.reshape(*codes.shape[:-1], -1)]
    else:
        values = codes.astype(jnp.float32)
    blocks = values.reshape(*scales.shape, -1) * scales[..., None]
    return blocks.reshape(values.shape)


def quantize(weight: Float[np.ndarray, "*rows in"], method: str) -> dict[str, np.ndarray]:
    """{"codes", "scales"} of a `QuantizedWeight`. A weight goes to the nearest value of its block."""
    *rows, columns = weight.shape
    blocks = np.asarray(weight, np.float32).reshape(*rows, -1, block_size(columns))
    largest = np.abs(blocks).max(axis=-1)
    share = blocks / np.where(largest == 0, 1, largest)[..., None]
    if method == "int8":
        return {"codes": np.rint(share * 127).astype(np.int8).reshape(weight.shape), "scales": largest / 127}
    nearest = np.searchsorted((NF4[1:] + NF4[:-1]) / 2, share).astype(np.uint8).reshape(*rows, columns // 2, 2)
    return {"codes": nearest[..., 0] << 4 | nearest[..., 1], "scales": largest}


def block_size(columns: int) -> int:
    """The largest even block of at most 64 that divides a row (64 in all common models)."""
    size = next((size for size in range(BLOCK, 0, -2) if columns % size == 0), None)
    if size is None:
        raise InputError(
            f"student.quantization: a linear layer with {columns} inputs, an odd number, cannot be quantised"
        )
    return size
