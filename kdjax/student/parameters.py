"""The two kinds of parameters of a student; `nnx.split` tells them apart by these types."""

from flax import nnx


class BaseParam(nnx.Variable):
    """A frozen weight of the base model."""


class LoRAParam(nnx.Param):
    """A trained adapter weight; float32 whatever the base's dtype."""
