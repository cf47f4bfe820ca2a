"""Our LoRA layer: a frozen linear map plus a trained low-rank update, by PEFT's names and meanings."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from kdjax.errors import InputError

LINEAR_NAMES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class BaseParam(nnx.Variable):
    """A frozen weight of the base model."""


class LoRAParam(nnx.Param):
    """A trained adapter weight; float32 whatever the base's dtype."""


@dataclass(frozen=True)
class LoraConfig:
    """PEFT's `LoraConfig`, the fields that are supported; names, meanings and defaults are PEFT's.

    `target_modules`: names of linear layers, or "all-linear" (every linear layer but the head).
    The update is scaled by lora_alpha / r, or by lora_alpha / sqrt(r) with `use_rslora`.
    """

    r: int = 8
    lora_alpha: float = 8
    lora_dropout: float = 0.0
    target_modules: str | Sequence[str] = "all-linear"
    use_rslora: bool = False

    def __post_init__(self):
        if self.r < 1:
            raise InputError(f"lora.r={self.r}: the rank must be at least 1")
        if not 0.0 <= self.lora_dropout < 1.0:
            raise InputError(f"lora.lora_dropout={self.lora_dropout}: must be in [0, 1)")
        unknown = sorted(set(self.modules()) - set(LINEAR_NAMES))
        if unknown or not self.modules():
            raise InputError(
                f"lora.target_modules: {unknown} fits no linear layer; there are {', '.join(LINEAR_NAMES)}"
            )

    def modules(self) -> tuple[str, ...]:
        """The names of the adapted layers."""
        if self.target_modules == "all-linear":
            return LINEAR_NAMES
        return (self.target_modules,) if isinstance(self.target_modules, str) else tuple(self.target_modules)

    @property
    def scaling(self) -> float:
        """Factor of B·A: alpha/r, or alpha/√r (rsLoRA, arXiv 2312.03732)."""
        return self.lora_alpha / (math.sqrt(self.r) if self.use_rslora else self.r)


@dataclass(frozen=True)
class Dropout:
    """LoRA dropout keyed by example, not by row: where an example stands in a batch does not change its mask.

    `keys` [1 + batch] holds the prefix's key and one per example. The prefix is computed once, so its mask is shared by
    all examples: the one way in which a step with a shared prefix differs from a step without.
    """

    rate: float
    keys: Key[Array, " rows"]
    prefix: int
    length: int

    @classmethod
    def of_step(
        cls, rate: float, key: PRNGKeyArray, example_ids: Int[Array, " batch"], prefix: int, length: int
    ) -> "Dropout":
        """Masks of one training step; `example_ids` are the examples' numbers in the training set (0, 1, …; -1 pads)."""
        ids = jnp.concatenate([jnp.zeros(1, jnp.int32), example_ids.astype(jnp.int32) + 1])
        return cls(rate, jax.vmap(jax.random.fold_in, (None, 0))(key, ids), prefix, length)

    def at(self, place: int | Int[Array, ""]) -> "Dropout":
        """The masks of a layer, or of a linear map inside it."""
        return Dropout(self.rate, jax.vmap(jax.random.fold_in, (0, None))(self.keys, place), self.prefix, self.length)

    def __call__(self, x: Float[Array, "tokens features"]) -> Float[Array, "tokens features"]:
        """Zero a share `rate` of the entries of x, and scale the others up."""
        features = x.shape[-1]
        keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - self.rate, (self.length, features)))(self.keys[1:])
        keep = keep.reshape(-1, features)
        if self.prefix:
            shared = jax.random.bernoulli(self.keys[0], 1.0 - self.rate, (self.prefix, features))
            keep = jnp.concatenate([shared, keep])
        return jnp.where(keep, x / (1.0 - self.rate), 0.0).astype(x.dtype)


class LoRALinear(nnx.Module):
    """y = x Wᵀ + scaling · dropout(x) Aᵀ Bᵀ, with W [out, in], A [r, in], B [out, r] as PEFT stores them.

    All arrays carry a leading layer axis when built; inside the scan over layers each call sees its own layer's slice.
    Activations are 2-D: with a batch axis XLA:CPU transposes in the backward pass and is four times slower.
    """

    def __init__(self, name: str, in_features: int, out_features: int, *, layers: int, dtype, lora: LoraConfig | None):
        self.place = LINEAR_NAMES.index(name)
        self.weight = BaseParam(jnp.zeros((layers, out_features, in_features), dtype))
        self.adapted = lora is not None and name in lora.modules()
        if self.adapted:
            self.scaling = lora.scaling
            self.lora_A = LoRAParam(jnp.zeros((layers, lora.r, in_features), jnp.float32))
            self.lora_B = LoRAParam(jnp.zeros((layers, out_features, lora.r), jnp.float32))

    def __call__(self, x: Float[Array, "tokens in"], dropout: Dropout | None = None) -> Float[Array, "tokens out"]:
        y = x @ self.weight[...].T
        if not self.adapted:
            return y
        if dropout is not None:
            x = dropout.at(self.place)(x)
        down = (x @ self.lora_A[...].astype(x.dtype).T) * jnp.asarray(self.scaling, x.dtype)
        return y + down @ self.lora_B[...].astype(x.dtype).T


def init_adapter(abstract: dict, key: PRNGKeyArray) -> dict:
    """PEFT's default init: A from kaiming_uniform(a=√5), i.e. uniform in ±1/√in_features; B zero, so training starts at the base."""
    leaves, structure = jax.tree.flatten_with_path(abstract)
    keys = jax.random.split(key, len(leaves))
    fresh = []
    for (path, leaf), leaf_key in zip(leaves, keys, strict=True):
        bound = leaf.shape[-1] ** -0.5
        is_a = path[-1].key == "lora_A"
        fresh.append(
            jax.random.uniform(leaf_key, leaf.shape, leaf.dtype, -bound, bound)
            if is_a
            else jnp.zeros(leaf.shape, leaf.dtype)
        )
    return jax.tree.unflatten(structure, fresh)
