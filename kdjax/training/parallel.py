"""How programs and arrays are spread over devices: by pmap, each with a copy of the model; or over a mesh, which also cuts the model.

A batch is cut into shares, each of which has a leading place in the arrays of its rows. Arrays are always this process's own
copies or shards; a program that works `together` sums over the shares of all processes.
"""

import re
from collections.abc import Callable, Sequence
from functools import wraps

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from kdjax.errors import InputError
from kdjax.student.mesh import TENSOR

KINDS = ("pmap", "mesh")
AXIS = "data"  # what a program sums over
AXES = (AXIS, "fsdp", TENSOR)
SHARES = (AXIS, "fsdp")  # the axes that cut a batch; "fsdp" and "tensor" cut the base

# How the axes of a base parameter are cut, by the end of its path. What a layer's first maps put out, its last ones take in, so that
# between them "tensor" needs no exchange; "fsdp" cuts the other axis, and is gathered where it is used.
CUTS: tuple[tuple[str, tuple], ...] = (
    (r"(q|k|v|gate|up)_proj/(weight|codes|scales)", (None, TENSOR, "fsdp")),
    (r"(q|k|v|gate|up)_proj/bias", (None, TENSOR)),
    (r"(o|down)_proj/(weight|codes|scales)", (None, "fsdp", TENSOR)),
    (r"(embed_tokens|lm_head)/weight", (None, ("fsdp", TENSOR))),
)


class Parallel:
    """The devices of this process, as data × fsdp × tensor; with pmap all are data.

    Args:
        devices: those of all processes; None: all that JAX has. They may be of a machine that is not there, to compile for it.

    Raises:
        InputError: fsdp · tensor does not divide the number of devices.
    """

    def __init__(self, kind: str = "pmap", fsdp: int = 1, tensor: int = 1, devices: Sequence[jax.Device] | None = None):
        every = sorted(devices or jax.devices(), key=lambda device: (device.process_index, device.id))
        local = [device for device in every if device.process_index == jax.process_index()]
        data, rest = divmod(len(local), fsdp * tensor)
        if rest or not data:
            raise InputError(
                f"config.mesh: fsdp={fsdp} times tensor={tensor} does not divide the {len(local)} devices of a process"
            )
        self._processes = len({device.process_index for device in every})
        self._kind, self._mesh = kind, _mesh(local, data, fsdp, tensor)
        self._whole = _mesh(every, data * self._processes, fsdp, tensor)
        self.shares = data * fsdp  # of this process
        self.all_shares = self.shares * self._processes

    @property
    def platform(self) -> str:
        """What the devices are: "cpu", "gpu", "tpu", …"""
        return self._mesh.devices.flat[0].platform

    @property
    def long_rows(self) -> bool:
        """Whether a share is best laid out as a single row: a CPU's attention goes from example to example, while other
        devices compute rows of equal length side by side."""
        return self.platform == "cpu"

    @property
    def replicated(self) -> NamedSharding:
        """A full copy on each device."""
        return NamedSharding(self._mesh, PartitionSpec())

    def replicate(self, tree):
        """Put a copy of `tree` on each device; what is there already is not moved."""
        return jax.device_put(tree, self.replicated)

    def cut(self, path: Sequence[str], shape: Sequence[int]) -> PartitionSpec:
        """How a parameter of the base is cut, by its path (see CUTS), where its axes divide evenly."""
        sizes = dict(self._mesh.shape)
        cuts = next((cuts for pattern, cuts in CUTS if re.search(f"{pattern}$", "/".join(path))), ())

        def fits(size: int, axes) -> bool:
            return size % int(np.prod([sizes[axis] for axis in np.atleast_1d(axes)])) == 0

        return PartitionSpec(
            *(axes if axes and fits(size, axes) else None for size, axes in zip(shape, cuts, strict=False))
        )

    def place(self, path: Sequence[str], array) -> jax.Array:
        """Put a parameter of the base where it belongs, by its path: whole on each device, or cut."""
        return jax.device_put(array, NamedSharding(self._mesh, self.cut(path, array.shape)))

    def place_base(self, base: dict) -> dict:
        """All parameters of a base, each placed; what is there already is not moved."""
        return jax.tree.map_with_path(lambda path, leaf: self.place([key.key for key in path], leaf), base)

    def put_shares(self, rows):
        """Put this process's part of arrays that lead with the shares of all processes."""
        mine = slice(jax.process_index() * self.shares, (jax.process_index() + 1) * self.shares)
        return jax.device_put(jax.tree.map(lambda array: array[mine], rows), self._cut)

    @property
    def _cut(self) -> NamedSharding:
        return NamedSharding(self._mesh, PartitionSpec(SHARES))

    def spread(
        self,
        program: Callable,
        in_axes: Sequence[int | None],
        out_axes: int | None = 0,
        donate_argnums: int | tuple[int, ...] = (),
        together: bool = False,
    ) -> Callable:
        """`program`, which sees one share, compiled for all shares at once.

        Arguments of axis 0, and results where `out_axes` is 0, lead with the shares; those of None are the same for all. Inside,
        `jax.lax.psum(…, AXIS)` sums over the shares: over those of all processes where they work `together`, which all must
        call it then; else over this process's.
        """
        mesh = self._whole if together else self._mesh
        if self._kind == "pmap":
            return jax.pmap(
                program,
                axis_name=AXIS,
                in_axes=in_axes,
                out_axes=out_axes,
                donate_argnums=donate_argnums,
                devices=list(mesh.devices.flat),
            )
        mapped = jax.vmap(program, in_axes, out_axes, axis_name=AXIS, spmd_axis_name=SHARES)
        result = NamedSharding(mesh, PartitionSpec(SHARES) if out_axes == 0 else PartitionSpec())
        compiled = jax.jit(_traced_for(mesh, mapped), out_shardings=result, donate_argnums=donate_argnums)
        if mesh is self._mesh or self._processes == 1:
            return compiled
        return lambda *arguments: self._ours(compiled(*map(self._everybodys, arguments)))

    def once(self, program: Callable) -> Callable:
        """`program`, which sees no shares, compiled for all devices of this process; each has all its results."""
        return jax.jit(_traced_for(self._mesh, program), out_shardings=self.replicated)

    def _everybodys(self, tree):
        """This process's arrays as its part of arrays over all processes; nothing is moved."""

        def widen(array: jax.Array) -> jax.Array:
            assert isinstance(array.sharding, NamedSharding)  # as all that is placed here
            spec, shape = array.sharding.spec, array.shape
            if spec and spec[0] == SHARES:
                shape = shape[0] * self._processes, *shape[1:]
            return _from_shards(array, shape, NamedSharding(self._whole, spec))

        return jax.tree.map(widen, tree)

    def _ours(self, tree):
        """The reverse of `_everybodys`, for arrays that are the same for all shares."""
        return jax.tree.map(lambda array: _from_shards(array, array.shape, self.replicated), tree)


def _from_shards(array: jax.Array, shape: tuple[int, ...], sharding: NamedSharding) -> jax.Array:
    parts = [shard.data for shard in array.addressable_shards]
    return jax.make_array_from_single_device_arrays(shape, sharding, parts)


def _traced_for(mesh: Mesh, program: Callable) -> Callable:
    """`program`, which finds the mesh around it while it is traced (see `kdjax.student.mesh`)."""

    @wraps(program)
    def traced(*arguments):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return program(*arguments)

    return traced


def _mesh(devices: Sequence[jax.Device], *shape: int) -> Mesh:
    """Not by `jax.make_mesh`, which may reorder the devices: those of a process must stay together."""
    return Mesh(np.array(devices).reshape(shape), AXES, axis_types=(AxisType.Auto,) * len(AXES))
