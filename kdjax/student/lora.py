"""Our LoRA layer: a frozen linear map plus a trained low-rank update, by PEFT's names and meanings."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int, PRNGKeyArray

from kdjax.student.dropout import Dropout
from kdjax.student.lora_config import LINEAR_NAMES, Plan
from kdjax.student.mesh import TENSOR, target_platform, within_share
from kdjax.student.parameters import BaseParam, LoRAParam
from kdjax.student.quantization import QuantizedWeight

SAVED = "linear"  # what the outputs are called where a policy decides what to keep for the backward pass
MANY = 512  # tokens from which on it pays to add the update to the weight first
CLOSING = ("o_proj", "down_proj")  # they sum over what TENSOR cuts; the outputs of the others are cut along it


@dataclass(frozen=True)
class Linears:
    """What all linear maps of a decoder share: the number of layers, the dtype, and how weights and adapters are made."""

    layers: int
    dtype: jnp.dtype
    quantization: str | None
    plans: dict[str, Plan]  # empty: no adapter
    use_dora: bool = False


@dataclass(frozen=True)
class Here:
    """Where in the stack of layers a call is: the layer's number, known inside the scan, and its dropout masks.

    `few`: a call with one or two tokens of each row. Where a mesh cuts the weights, these tokens are cheaper to move than weights.
    """

    layer: Int[Array, ""]
    dropout: Dropout | None = None
    few: bool = False


class LoRALinear(nnx.Module):
    """y = x Wᵀ + bias + scale · dropout(x) Aᵀ Bᵀ, with W [out, in], A [r, in], B [out, r] as PEFT stores them.

    All arrays carry a leading layer axis when built; inside the scan over layers each call sees its own layer's slice. Where ranks
    differ between layers the stack has the largest: the rows of A and columns of B beyond a layer's own rank are zero and stay
    so, since each one's gradient is a multiple of the other. Activations are 2-D: with a batch axis XLA:CPU transposes in the
    backward pass and is four times slower.

    DoRA: y = x Wᵀ + bias + (m/‖W + scale · B A‖ − 1) · x Wᵀ + m/‖…‖ · scale · x Aᵀ Bᵀ, the norm over each row and, as in
    PEFT, constant for the gradient; with dropout all but the first term see the dropped x.
    """

    def __init__(self, name: str, in_features: int, out_features: int, common: Linears, bias: bool = False):
        shape = (common.layers, out_features, in_features)
        self.place = LINEAR_NAMES.index(name)
        self.cut = None if name in CLOSING else TENSOR
        self.weight: BaseParam | QuantizedWeight
        if common.quantization:
            self.weight = QuantizedWeight(common.quantization, shape)
        else:
            self.weight = BaseParam(jnp.zeros(shape, common.dtype))
        self.bias = BaseParam(jnp.zeros(shape[:2], common.dtype)) if bias else None
        self.plan = common.plans.get(name, Plan((0,), (0.0,)))
        self.use_dora = common.use_dora
        if self.plan.rank:
            self.lora_A = LoRAParam(jnp.zeros((common.layers, self.plan.rank, in_features), jnp.float32))
            self.lora_B = LoRAParam(jnp.zeros((common.layers, out_features, self.plan.rank), jnp.float32))
            if self.use_dora:
                self.lora_magnitude_vector = LoRAParam(jnp.zeros(shape[:2], jnp.float32))

    def __call__(self, x: Float[Array, "tokens in"], here: Here) -> Float[Array, "tokens out"]:
        y = self._map(x, here)
        return checkpoint_name(y if here.few else within_share(y, None, self.cut), SAVED)

    def _map(self, x: Float[Array, "tokens in"], here: Here) -> Float[Array, "tokens out"]:
        weight = self.weight(x.dtype) if isinstance(self.weight, QuantizedWeight) else self.weight[...]
        bias = 0 if self.bias is None else self.bias[...]
        if not self.plan.rank:
            return x @ weight.T + bias
        scale = jnp.asarray(self.plan.scales, jnp.float32)[here.layer]
        exact = x.dtype == jnp.float32 and target_platform() == "cpu"  # others round products of float32, too
        if here.dropout is None and not self.use_dora and exact and x.shape[0] > MANY:
            return added_first(x, weight, self.lora_A[...], self.lora_B[...], scale) + bias
        plain = x @ weight.T
        y = plain + bias
        dropped = x if here.dropout is None else here.dropout.at(self.place)(x)
        down = (dropped @ self.lora_A[...].astype(x.dtype).T) * scale.astype(x.dtype)
        update = down @ self.lora_B[...].astype(x.dtype).T
        if not self.use_dora:
            return y + update
        if here.dropout is not None:
            plain = dropped @ weight.T
        norm = row_norms(weight, self.lora_A[...], self.lora_B[...], scale)
        ratio = self.lora_magnitude_vector[...] / jax.lax.stop_gradient(norm)
        if not all(self.plan.ranks):  # a layer without an adapter keeps its rows, and its magnitudes get no gradient
            ratio = jnp.where(jnp.asarray(self.plan.ranks)[here.layer] > 0, ratio, 1.0)
        ratio = ratio.astype(x.dtype)
        return y + (ratio - 1) * plain + ratio * update


@jax.custom_vjp
def added_first(
    x: Float[Array, "tokens in"],
    weight: Float[Array, "out in"],
    a: Float[Array, "r in"],
    b: Float[Array, "out r"],
    scale: Float[Array, ""],
) -> Float[Array, "tokens out"]:
    """x (W + scale · B A)ᵀ: where there are many tokens it costs less to add the update to the weight than to each token's output.

    Equal to x Wᵀ + scale · x Aᵀ Bᵀ up to float32 rounding (in bfloat16, or as GPUs and TPUs multiply float32, the sum
    would swallow the update). W and the scale get no gradient; those of A and B are skinny products, as they would be
    without this.
    """
    return x @ (weight + (scale * b) @ a).T


def _added_forward(x, weight, a, b, scale):
    return added_first(x, weight, a, b, scale), (x, weight, a, b, scale)


def _added_backward(kept, dy):
    x, weight, a, b, scale = kept
    scaled = scale * b
    return dy @ (weight + scaled @ a), None, (dy @ scaled).T @ x, scale * (dy.T @ (x @ a.T)), None


added_first.defvjp(_added_forward, _added_backward)


def row_norms(
    weight: Float[Array, "out in"], a: Float[Array, "r in"], b: Float[Array, "out r"], scale: Float[Array, ""]
) -> Float[Array, " out"]:
    """‖W + scale · B A‖ of each row, float32, from products with r columns: B A itself would be as large as W, and kept for backward."""
    weight = weight.astype(jnp.float32)
    scaled = b * scale
    cross = jnp.sum((weight @ a.T) * scaled, axis=-1)
    square = jnp.sum((scaled @ (a @ a.T)) * scaled, axis=-1)
    return jnp.sqrt(jnp.sum(weight * weight, axis=-1) + 2 * cross + square)


def init_adapter(abstract: dict, plans: dict[str, Plan], key: PRNGKeyArray, norms: dict[str, Array]) -> dict:
    """PEFT's default init: A from kaiming_uniform(a=√5), i.e. uniform in ±1/√in_features; B zero, so training starts at the base.

    `norms`: for DoRA, the row norms [layers, out] of the base's weights by the map's name, where its magnitudes start.
    """
    leaves, structure = jax.tree.flatten_with_path(abstract)
    keys = jax.random.split(key, len(leaves))
    fresh = []
    for (path, leaf), leaf_key in zip(leaves, keys, strict=True):
        name, kind = path[-2].key, path[-1].key
        ranks = np.array(plans[name].ranks)
        if kind == "lora_A":
            bound = leaf.shape[-1] ** -0.5
            drawn = jax.random.uniform(leaf_key, leaf.shape, leaf.dtype, -bound, bound)
            fresh.append(jnp.where((np.arange(leaf.shape[1]) < ranks[:, None])[..., None], drawn, 0.0))
        elif kind == "lora_magnitude_vector":
            fresh.append(jnp.where(ranks[:, None] > 0, norms[name], 0.0))
        else:
            fresh.append(jnp.zeros(leaf.shape, leaf.dtype))
    return jax.tree.unflatten(structure, fresh)
