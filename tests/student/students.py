"""Students with an adapter that does something."""

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.student import LoraConfig, Student, load_student


def trained_student(folder, lora: LoraConfig, seed: int = 0, **settings) -> Student:
    """A student whose B is not zero and whose magnitudes are not the base's, as if it had been trained."""
    student = load_student(str(folder), lora=lora, **settings)
    plans = lora.plans(student.config.num_hidden_layers)
    rng = np.random.default_rng(seed)

    def random(path, leaf):
        if path[-1].key == "lora_magnitude_vector":
            return leaf * jnp.asarray(rng.uniform(0.8, 1.3, leaf.shape), jnp.float32)
        values = rng.normal(0, 0.3 * leaf.shape[-1] ** -0.5, leaf.shape)
        for layer, rank in enumerate(plans[path[-2].key].ranks):  # what pads a smaller rank is and stays zero
            values[layer, rank:] *= path[-1].key != "lora_A"
            values[layer, :, rank:] *= path[-1].key != "lora_B"
        return jnp.asarray(values, jnp.float32)

    student.adapter = jax.tree.map_with_path(random, student.adapter)
    return student
