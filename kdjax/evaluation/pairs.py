"""How good judged pairs are: ten times finer than F1, which sees only the answer that follows from them."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Float


def pair_metrics(labels: Float[np.ndarray, " pairs"], log_odds: Float[np.ndarray, " pairs"]) -> dict:
    """ "auc" (None where all pairs are of one kind), "nll" (nats per pair) and "n" of pairs with label 1 (they share a
    bundle) or 0, by their log-odds."""
    from sklearn.metrics import log_loss, roc_auc_score

    return {
        "auc": float(roc_auc_score(labels, log_odds)) if 0 < labels.mean() < 1 else None,
        "nll": float(log_loss(labels, 1 / (1 + np.exp(-log_odds)), labels=[0, 1])),
        "n": len(labels),
    }


def reliability(
    labels: Float[np.ndarray, " pairs"], log_odds: Float[np.ndarray, " pairs"], bins: int = 10
) -> list[tuple[float, float, int]]:
    """(mean probability, share that does share a bundle, number of pairs) of groups of pairs of about equal size,
    ascending by probability. Where probabilities are calibrated the first two are equal, but for chance."""
    order = np.argsort(log_odds, kind="stable")
    probabilities = 1 / (1 + np.exp(-log_odds))
    groups = [group for group in np.array_split(order, bins) if len(group)]
    return [(float(probabilities[group].mean()), float(labels[group].mean()), len(group)) for group in groups]


def share_a_bundle(bundles: Sequence[Sequence[int]], n: int) -> Float[np.ndarray, " pairs"]:
    """1 for each pair (0, 1), (0, 2), …, (1, 2), … of n products that shares a bundle (of 0-based positions), else 0."""
    together = {pair for bundle in bundles for pair in combinations(sorted(bundle), 2)}
    return np.array([float(pair in together) for pair in combinations(range(n), 2)])
