"""Students with an adapter that does something."""

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.student import LoraConfig, Student, load_student


def trained_student(folder, lora: LoraConfig, seed: int = 0) -> Student:
    """A student whose B is not zero, as if it had been trained."""
    student = load_student(str(folder), lora=lora)
    rng = np.random.default_rng(seed)
    student.adapter = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(0, 0.3 * leaf.shape[-1] ** -0.5, leaf.shape), jnp.float32), student.adapter
    )
    return student
