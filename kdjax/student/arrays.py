"""What may stand where an array is asked for."""

import jax
import numpy as np

# A caller's arrays are NumPy's where nothing is compiled, and JAX's inside of what is.
AnyArray = jax.Array | np.ndarray
