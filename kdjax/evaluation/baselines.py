"""Bundles without a language model: the floors that a student has to beat, all but one without any training.

Naming one safe pair per session scores .76 precision under the paper's metrics, and naming every pair a recall of 4.7, so
no model row means much without these beside it.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import combinations

import numpy as np
from jaxtyping import Float

from kdjax.data.sessions import Session, leaf_category
from kdjax.evaluation.metrics import from_counts, session_counts
from kdjax.evaluation.pair_classifier import PairClassifier
from kdjax.evaluation.titles import fit_titles, title_similarity

Prediction = list[tuple[int, ...]]  # the bundles of one session: 0-based positions, ascending, two or more each

SIMILARITIES = np.arange(1, 26) / 50  # 0.02, 0.04, …, 0.50
PROBABILITIES = np.arange(1, 20) / 20  # 0.05, 0.10, …, 0.95
TRAINED = "pair classifier"


def run_baselines(
    train: Sequence[Session], validation: Sequence[Session], test: Sequence[Session]
) -> dict[str, list[Prediction]]:
    """What each baseline predicts for each test session of one domain: {name: one `Prediction` per session}.

    The two that compare titles weigh their words over the products of all three splits (titles only, never bundles), so
    give whole splits and select sessions afterwards. `tf-idf components` and TRAINED read bundles of `validation` to
    tune a threshold (of `train` if that is empty); TRAINED learns from `train` alone, everything else reads no bundles.
    What was found for the same sessions before, as in the runs of a study, is not found again.
    """
    return dict(_baselines(tuple(train), tuple(validation), tuple(test)))


@lru_cache(maxsize=8)
def _baselines(
    train: tuple[Session, ...], validation: tuple[Session, ...], test: tuple[Session, ...]
) -> dict[str, list[Prediction]]:
    tuned_on = validation or train
    words = fit_titles([*train, *validation, *test])
    similarities = [title_similarity(words, session) for session in test]
    known = [title_similarity(words, session) for session in tuned_on]
    threshold = tune_threshold(SIMILARITIES, lambda t: [components(one, t) for one in known], tuned_on)
    return {
        "whole session": [whole_session(session) for session in test],
        "most similar pair": [most_similar_pair(similarity) for similarity in similarities],
        "same category": [same_category(session) for session in test],
        "tf-idf components": [components(similarity, threshold) for similarity in similarities],
        "all pairs": [all_pairs(session) for session in test],
        TRAINED: pair_clusters(train, tuned_on, test),
    }


def pair_clusters(train: Sequence[Session], tuned_on: Sequence[Session], test: Sequence[Session]) -> list[Prediction]:
    """Clusters of a `PairClassifier` learned from `train`, at the threshold that is best for the sessions `tuned_on`."""
    judge = PairClassifier(train, seed=0)
    known = [(judge(session), len(session)) for session in tuned_on]
    threshold = tune_threshold(PROBABILITIES, lambda t: [cluster(*one, t) for one in known], tuned_on)
    return [cluster(judge(session), len(session), threshold) for session in test]


def whole_session(session: Session) -> Prediction:
    """All products as one bundle."""
    return _bundles([range(len(session))])


def all_pairs(session: Session) -> Prediction:
    """Every pair of products: shows how far the paper's recall, which counts predictions, can be driven."""
    return list(combinations(range(len(session)), 2))


def same_category(session: Session) -> Prediction:
    """The products that share a leaf category; a product without a category stays alone."""
    groups: dict[str, list[int]] = {}
    for position, paths in enumerate(session.categories):
        leaf = leaf_category(paths)
        if leaf is not None:
            groups.setdefault(leaf, []).append(position)
    return _bundles(groups.values())


def most_similar_pair(similarity: np.ndarray) -> Prediction:
    """The pair of products with the most similar titles (the first of equals), from `title_similarity` [n, n]."""
    first, second = np.triu_indices(len(similarity), k=1)
    if not len(first):
        return []
    best = similarity[first, second].argmax()
    return [(int(first[best]), int(second[best]))]


def components(similarity: np.ndarray, threshold: float) -> Prediction:
    """The connected components of the graph that joins products whose titles are at least `threshold` similar."""
    from scipy.sparse.csgraph import connected_components

    n_components, labels = connected_components(similarity >= threshold, directed=False)
    return _bundles(np.flatnonzero(labels == component).tolist() for component in range(n_components))


def cluster(probabilities: Float[np.ndarray, " pairs"], size: int, threshold: float) -> Prediction:
    """Average-link clusters of `size` products: two are joined while their pairs' mean probability is at least `threshold`."""
    from scipy.cluster.hierarchy import fcluster, linkage

    if size < 2:
        return []
    labels = fcluster(linkage(1.0 - probabilities, method="average"), 1.0 - threshold + 1e-9, criterion="distance")
    return sorted(_bundles(np.flatnonzero(labels == label).tolist() for label in np.unique(labels)))


def tune_threshold(
    thresholds: Iterable[float], predict: Callable[[float], list[Prediction]], sessions: Sequence[Session]
) -> float:
    """The threshold whose predictions have the best strict F1 on `sessions` (the lowest of equals)."""
    truth = [session.bundles for session in sessions]

    def f1(threshold: float) -> float:
        return from_counts(session_counts(predict(threshold), truth).sum(axis=0))["strict"]["f1"]

    return float(max(thresholds, key=f1))


def _bundles(groups: Iterable[Iterable[int]]) -> Prediction:
    """The groups of two or more products, as tuples."""
    return [bundle for bundle in map(tuple, groups) if len(bundle) > 1]
