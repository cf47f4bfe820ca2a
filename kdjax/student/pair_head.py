"""The pair head: from the hidden states of two products to the log-odds that they share a bundle.

It begins as a logistic regression on the untrained student's states (a frozen model stimulated in its middle layers, as in
arXiv 2408.06787); fine-tuning goes on from there, with the adapter below it.
"""

from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from kdjax.errors import InputError

PAIR_HEAD = "pair_head.safetensors"
WIDTH = 64  # principal components of the states that the head sees
PENALTY = 0.003  # scikit-learn's C: the pairs of one session are far from independent, so a strong one
FLAT = 1e-6  # share of the largest variance below which a component says nothing
SURE = 9.0  # log-odds of a pair where there is but one kind
SMOOTH = 1e-6  # keeps roots and cosines differentiable at zero

PairHead = dict[str, Float[Array, "..."]]
"""center [hidden], projection [hidden, width], and the weights of each component's difference [width] and product [width], of
the cosine [] and the bias []."""


def pair_logits(
    head: PairHead,
    states: Float[Array, "products hidden"],
    first: Int[Array, " pairs"],
    second: Int[Array, " pairs"],
) -> Float[Array, " pairs"]:
    """Log-odds that the products of each pair share a bundle: linear in |a − b|, a · b and cos(a, b) of their projected states.

    The same for (a, b) and (b, a).
    """
    difference, product, cosine = _features(head, states, first, second)
    return difference @ head["difference"] + product @ head["product"] + cosine * head["cosine"] + head["bias"]


def _features(head: PairHead, states, first, second):
    projected = (states - head["center"]) @ head["projection"]
    a, b = projected[first], projected[second]
    lengths = jnp.sqrt((a * a).sum(axis=-1) + SMOOTH) * jnp.sqrt((b * b).sum(axis=-1) + SMOOTH)
    return jnp.sqrt((a - b) ** 2 + SMOOTH), a * b, (a * b).sum(axis=-1) / lengths


def fit_pair_head(
    states: Sequence[Float[np.ndarray, "products hidden"]], together: Sequence[Float[np.ndarray, " pairs"]]
) -> PairHead:
    """The head for states as they are: whitened principal components of all products, then logistic regression over all pairs.

    `together[i]` is 1 for each pair (0, 1), (0, 2), …, (1, 2), … of session i that shares a bundle, 0 for the others.

    Where the pairs are all of one kind, each pair is of that kind.
    """
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    products = np.concatenate(states)
    components = PCA(min(WIDTH, *products.shape), random_state=0).fit(products)
    variance = components.explained_variance_
    kept = variance > FLAT * variance[0]  # of few products the last ones are nothing but rounding
    projection = components.components_[kept].T / np.sqrt(variance[kept])
    head = {"center": components.mean_, "projection": projection}
    width, labels = projection.shape[1], np.concatenate(together)
    weights, bias = np.zeros(2 * width + 1), SURE * (1.0 if labels.any() else -1.0)
    if labels.any() and not labels.all():
        features = [np.column_stack(_features(head, one, *np.triu_indices(len(one), k=1))) for one in states]
        scaler = StandardScaler()
        linear = LogisticRegression(C=PENALTY, max_iter=1000)
        linear.fit(scaler.fit_transform(np.concatenate(features)), labels)
        weights = linear.coef_[0] / scaler.scale_
        bias = linear.intercept_[0] - weights @ scaler.mean_
    head |= {"difference": weights[:width], "product": weights[width : 2 * width], "cosine": weights[-1], "bias": bias}
    return {name: jnp.asarray(value, jnp.float32) for name, value in head.items()}


def save_pair_head(folder: Path, head: PairHead) -> None:
    """Write PAIR_HEAD into a folder, aside and then renamed, so that a half-written one is never seen."""
    aside = folder / f".{PAIR_HEAD}.tmp"
    save_file({name: np.array(value, order="C") for name, value in head.items()}, aside)
    aside.replace(folder / PAIR_HEAD)


def load_pair_head(folder: Path, hidden: int) -> PairHead:
    """Read PAIR_HEAD from a folder; it must be for states of `hidden` numbers.

    Raises:
        InputError: the file is missing or broken, or of another shape.
    """
    path = folder / PAIR_HEAD
    try:
        head = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: not readable as a pair head ({error})") from error
    width = head["difference"].size if "difference" in head else 0
    shapes = {"center": (hidden,), "projection": (hidden, width), "difference": (width,), "product": (width,)}
    shapes |= {"cosine": (), "bias": ()}
    found = {name: value.shape for name, value in head.items()}
    if found != shapes:
        raise InputError(f"{path}: its arrays are {found}, and a pair head of this student has {shapes}")
    return {name: jnp.asarray(value, jnp.float32) for name, value in head.items()}
