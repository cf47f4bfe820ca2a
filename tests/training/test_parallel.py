"""What is compiled depends on the devices that it is compiled for."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import kdjax
from kdjax.student.mesh import mesh_of, target_platform, within_share
from kdjax.training import Parallel


def test_nothing_asks_for_the_default_backend():
    """What JAX would use by itself says nothing about the devices that a program is compiled for."""
    files = list(Path(kdjax.__file__).parent.rglob("*.py"))
    assert len(files) > 50
    assert not [file for file in files if "default_backend" in file.read_text(encoding="utf-8")]


@pytest.mark.parametrize("kind", ["pmap", "mesh"])
def test_a_program_finds_its_devices_while_it_is_traced(kind):
    parallel, found = Parallel(kind), []

    def program(x):
        found.append((target_platform(), jax.sharding.get_abstract_mesh().axis_names))
        return within_share(x, None)

    axes = ("data", "fsdp", "tensor") if kind == "mesh" else ("data",)
    assert parallel.spread(program, (0,))(jnp.ones((parallel.shares, 4))).shape == (parallel.shares, 4)
    assert parallel.once(program)(jnp.ones(4)).sharding == parallel.replicated
    assert found == [("cpu", axes), ("cpu", ("data", "fsdp", "tensor"))]
    assert parallel.platform == "cpu" and parallel.long_rows


def test_outside_a_mesh_nothing_is_taken_for_granted():
    assert target_platform() is None
    x = jnp.ones((2, 3))
    assert within_share(x, None, "tensor") is x


def test_arrays_name_their_mesh():
    parallel = Parallel("mesh")
    assert mesh_of({"x": jnp.ones(2)}).abstract_device.platform == "cpu"
    assert mesh_of({"x": parallel.replicate(jnp.ones(2))}) == parallel.replicated.mesh.abstract_mesh
