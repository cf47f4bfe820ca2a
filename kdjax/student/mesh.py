"""The devices that a program is traced for, as the mesh around the trace names them.

`jax.sharding.use_abstract_mesh` sets the mesh while a program is traced (see `Parallel.spread`); inside `jax.pmap`, JAX does. The
caches of `jax.jit` take it into account.
"""

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

TENSOR = "tensor"  # the mesh axis that cuts attention heads and the inner features of an MLP


def target_platform() -> str | None:
    """The platform to compile for: "cpu", "gpu", "tpu", …; None outside any mesh, where only code that suits all is safe."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return None if device is None else device.platform


def mesh_of(arrays) -> AbstractMesh:
    """The mesh that a tree of arrays lies on; for arrays without one, their devices in a row."""
    sharding = jax.tree.leaves(arrays)[0].sharding
    if isinstance(sharding, NamedSharding):
        return sharding.mesh.abstract_mesh
    devices = sorted(sharding.device_set, key=lambda device: device.id)
    return Mesh(np.array(devices), ("devices",)).abstract_mesh


def within_share(activations: Array, *axes: str | None) -> Array:
    """`activations` of one share, on the devices of that share alone, their dimensions cut along the mesh `axes` named.

    Where parameters are cut, XLA is otherwise free to leave them so, and to keep partial results of all shares on every device.
    Outside such a mesh nothing happens.
    """
    if TENSOR not in jax.sharding.get_abstract_mesh().axis_names:
        return activations
    return jax.lax.with_sharding_constraint(activations, PartitionSpec(*axes))
