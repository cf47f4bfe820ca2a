"""One step over four devices in every way, and one with the psum left out. Arguments: the model's folder, the .npz file to write."""

import sys
from pathlib import Path
from unittest import mock

import jax
import numpy as np
from training_helpers import PAD, Descent, one_group, random_examples, tiny_student

from kdjax.training import Parallel, lay_out

WAYS = {
    "pmap": {},
    "data": {"kind": "mesh"},
    "fsdp": {"kind": "mesh", "fsdp": 4},
    "tensor": {"kind": "mesh", "tensor": 4},
    "fsdp and tensor": {"kind": "mesh", "fsdp": 2, "tensor": 2},
}

student = tiny_student(Path(sys.argv[1]))
examples = random_examples("a", 11, prefix=13)
found = {"devices": jax.local_device_count()}


def step(name: str, parallel: Parallel) -> None:
    """What a step gives, in four micro-batches: a device has other targets than its neighbour, and mostly one or more have none."""
    groups, parts = one_group(examples, prefix=13), (examples[:4], examples[4:5], examples[5:8], examples[8:])
    batches = [batch for part in parts for batch in lay_out(part, groups, parallel.all_shares, PAD)]
    loss, gradient = Descent(student, parallel)(batches)
    found[f"{name}/loss"] = loss
    found.update({f"{name}/{i}": leaf for i, leaf in enumerate(jax.tree.leaves(gradient))})


for name, settings in WAYS.items():
    parallel = Parallel(**settings)
    base = parallel.place_base(student.base)
    found[f"{name}/bytes"] = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(base))
    step(name, parallel)
with mock.patch("jax.lax.psum", lambda tree, axis: tree):
    step("forgotten", Parallel())
np.savez(sys.argv[2], **found)
