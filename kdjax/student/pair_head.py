"""The pair head: from the hidden states of two products to the log-odds that they share a bundle.

It begins as a logistic regression on the untrained student's states (a frozen model stimulated in its middle layers, as in
arXiv 2408.06787); fine-tuning goes on from there, with the adapter below it.
"""

from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from safetensors.numpy import save_file

from kdjax.errors import InputError
from kdjax.sources import open_safetensors
from kdjax.student.arrays import AnyArray

PAIR_HEAD = "pair_head.safetensors"
WIDTH = 64  # principal components of a product's states that the head sees, shared out among its fields
PENALTY = 0.003  # scikit-learn's C: the pairs of one session are far from independent, so a strong one
FLAT = 1e-6  # share of the largest variance below which a component says nothing
SURE = 9.0  # log-odds of a pair where there is but one kind
SMOOTH = 1e-6  # keeps roots and cosines differentiable at zero

PairHead = dict[str, Float[Array, "..."]]
"""center [fields, hidden], projection [fields, hidden, width], and the weights of each component's difference [fields, width] and
product [fields, width], of the cosines [fields] and the bias []."""


def pair_logits(
    head: PairHead,
    states: Float[AnyArray, "products fields hidden"],
    first: Int[AnyArray, " pairs"],
    second: Int[AnyArray, " pairs"],
) -> Float[AnyArray, " pairs"]:
    """Log-odds that the products of each pair share a bundle: field by field linear in |a − b|, a · b and cos(a, b) of
    their projected states.

    The same for (a, b) and (b, a). Of NumPy's arrays NumPy computes them: sessions have many sizes, and JAX would compile for each.
    """
    told = zip(_features(head, states, first, second), ("difference", "product", "cosine"), strict=True)
    return sum((feature * head[name]).reshape(len(first), -1).sum(axis=-1) for feature, name in told) + head["bias"]


def _features(head: PairHead, states, first, second):
    """[pairs, fields, width] twice, and [pairs, fields]."""
    xp = np if isinstance(states, np.ndarray) else jnp
    exact = {"optimize": True} if xp is np else {"precision": "highest"}  # float32 on every device
    projected = xp.einsum("pfh,fhw->pfw", states - head["center"], head["projection"], **exact)
    a, b = projected[first], projected[second]
    lengths = xp.sqrt((a * a).sum(axis=-1) + SMOOTH) * xp.sqrt((b * b).sum(axis=-1) + SMOOTH)
    return xp.sqrt((a - b) ** 2 + SMOOTH), a * b, (a * b).sum(axis=-1) / lengths


def fit_pair_head(
    states: Sequence[Float[np.ndarray, "products fields hidden"]], together: Sequence[Float[np.ndarray, " pairs"]]
) -> PairHead:
    """The head for states as they are: whitened principal components of each field, then logistic regression over all pairs.

    `together[i]` is 1 for each pair (0, 1), (0, 2), …, (1, 2), … of session i that shares a bundle, 0 for the others.

    Where the pairs are all of one kind, each pair is of that kind.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    products = np.concatenate(states)
    fields = products.shape[1]
    head = {"center": products.mean(axis=0)}
    head["projection"] = np.stack([_whitening(products[:, field], WIDTH // fields) for field in range(fields)])
    width, labels = head["projection"].shape[-1], np.concatenate(together)
    weights, bias = np.zeros((2 * width + 1) * fields), SURE * (1.0 if labels.any() else -1.0)
    if labels.any() and not labels.all():
        features = [_flat(_features(head, one, *np.triu_indices(len(one), k=1))) for one in states]
        scaler = StandardScaler()
        linear = LogisticRegression(C=PENALTY, max_iter=1000)
        linear.fit(scaler.fit_transform(np.concatenate(features)), labels)
        weights = linear.coef_[0] / scaler.scale_
        bias = linear.intercept_[0] - weights @ scaler.mean_
    difference, product, cosine = np.split(weights, [width * fields, 2 * width * fields])
    shape = fields, width
    head |= {"difference": difference.reshape(shape), "product": product.reshape(shape), "cosine": cosine, "bias": bias}
    return {name: jnp.asarray(value, jnp.float32) for name, value in head.items()}


def _whitening(states: Float[np.ndarray, "products hidden"], width: int) -> Float[np.ndarray, "hidden width"]:
    """Towards the principal components, each of variance 1; zeros for components that are not there or say nothing."""
    from sklearn.decomposition import PCA

    projection = np.zeros((states.shape[1], width))
    if not states.var(axis=0).any():  # no product has this field
        return projection
    components = PCA(min(width, *states.shape), random_state=0).fit(states)
    variance = components.explained_variance_
    kept = variance > FLAT * variance[0]  # of few products the last ones are nothing but rounding
    projection[:, : kept.sum()] = components.components_[kept].T / np.sqrt(variance[kept])
    return projection


def _flat(features) -> Float[np.ndarray, "pairs features"]:
    return np.column_stack([np.asarray(feature).reshape(len(feature), -1) for feature in features])


def save_pair_head(folder: Path, head: PairHead) -> None:
    """Write PAIR_HEAD into a folder, aside and then renamed, so that a half-written one is never seen."""
    aside = folder / f".{PAIR_HEAD}.tmp"
    save_file({name: np.array(value, order="C") for name, value in head.items()}, aside)
    aside.replace(folder / PAIR_HEAD)


def load_pair_head(folder: Path, fields: int, hidden: int) -> PairHead:
    """Read PAIR_HEAD from a folder; it must be for products of so many fields, with states of `hidden` numbers.

    Raises:
        InputError: the file is missing or broken, of another shape, or holds numbers that are not finite.
    """
    path = folder / PAIR_HEAD
    head = dict(open_safetensors(path))
    width = WIDTH // fields
    shapes = {"center": (fields, hidden), "projection": (fields, hidden, width), "difference": (fields, width)}
    shapes |= {"product": (fields, width), "cosine": (fields,), "bias": ()}
    found = {name: value.shape for name, value in head.items()}
    if found != shapes:
        raise InputError(f"{path}: its arrays are {found}, and a pair head of this student has {shapes}")
    if not all(np.isfinite(value).all() for value in head.values()):
        raise InputError(f"{path}: it holds numbers that are not finite")
    return {name: jnp.asarray(value, jnp.float32) for name, value in head.items()}
