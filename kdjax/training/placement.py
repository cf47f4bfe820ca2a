"""Where arrays live: replicated over the local devices, put there once."""

import jax

AXIS = "data"


def replicated() -> jax.sharding.NamedSharding:
    """A full copy on every local device; the sharding that pmap gives and takes for `in_axes=None`."""
    devices = jax.local_devices()
    mesh = jax.make_mesh((len(devices),), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,), devices=devices)
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())


def replicate(tree):
    """Put a copy of `tree` on every local device; what is there already is not moved."""
    return jax.device_put(tree, replicated())
