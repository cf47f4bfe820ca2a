"""One step over all devices, and one with the psum left out. Arguments: the model's folder, the .npz file to write."""

import sys
from pathlib import Path
from unittest import mock

import jax
import numpy as np
from training_helpers import PAD, Descent, one_group, random_examples, tiny_student

from kdjax.training import lay_out

student = tiny_student(Path(sys.argv[1]))
examples = random_examples("a", 11, prefix=13)
found = {"devices": jax.local_device_count()}
# 11 examples on 4 devices, one row each: a device with other targets than its neighbour, and in the end one with none.
batches = lay_out(examples, one_group(examples, prefix=13), jax.local_device_count(), PAD)
for name, psum in (("summed", jax.lax.psum), ("forgotten", lambda tree, axis: tree)):
    with mock.patch("jax.lax.psum", psum):
        loss, gradient = Descent(student)(batches)
    found[f"{name}/loss"] = loss
    found |= {f"{name}/{i}": leaf for i, leaf in enumerate(jax.tree.leaves(gradient))}
np.savez(sys.argv[2], **found)
