"""Meshes of devices that need not be there, to trace programs for."""

from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh


def on(platform: str) -> use_abstract_mesh:
    """A context: what is traced inside is for one device of this platform."""
    device = AbstractDevice(device_kind="any", num_cores=None, platform=platform)
    return use_abstract_mesh(AbstractMesh((1,), ("devices",), abstract_device=device))
