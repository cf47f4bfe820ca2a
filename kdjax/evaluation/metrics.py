"""Three groups of metrics for bundle generation, computed from sums over sessions.

Every metric is a ratio of sums over sessions, so a session is reduced once to the row of numbers that it adds
(`session_counts`), and `from_counts` turns summed rows into metrics. That is all that the bootstrap needs, too.
"""

from collections.abc import Collection, Sequence
from itertools import combinations

import numpy as np

Bundles = Sequence[Sequence[int]]  # the bundles of one session: products by position, 0- or 1-based

STATISTICS = (
    "sessions",
    "answered",  # 1 if some bundle lists more than one product
    "precision",  # `paper`, of this session
    "recall",  # `paper`, of this session
    "hits",  # listed bundles that are a subset of a true one
    "covered",  # Σ |predicted| / |true| over the hits
    "predicted",  # distinct predicted sets
    "true",  # true bundles
    "overlap",  # Σ Jaccard of the optimal one-to-one assignment
    "exact",  # predicted sets that equal a true bundle
    "predicted_pairs",  # unordered pairs of products that share a bundle
    "true_pairs",
    "common_pairs",
    "valid",  # 1 if some predicted set has two or more products
)


def score(predicted: Sequence[Bundles], truth: Sequence[Bundles]) -> dict[str, dict[str, float]]:
    """Score predictions; both arguments hold one list of bundles per session, in the same order and numbering.

    Returns, as plain floats in [0, 1] (the two recalls of the paper can exceed 1):

    * `paper`: precision, recall and coverage as the code of the task's predecessor has them (AICL, arXiv 2312.16262,
      `utils/metrics.py`). A listed bundle with more than one entry *hits* if its products are a subset of a true bundle.
      Precision is hits / listed bundles and recall hits / true bundles, each the mean over the sessions that list such
      a bundle (`n_answered`, an int); the same true bundle may be hit often. Coverage is the mean over all hits of
      |predicted| / |true|, with the first true bundle that holds the hit.
    * `paper_all`: the same with every session in the denominator; one without an answer counts 0.
    * `strict`: distinct predicted sets matched one to one with the true bundles so that the summed Jaccard is largest
      (Hungarian method); that sum over the number of predicted sets and of true bundles gives precision and recall, and
      f1 is their harmonic mean. `exact_f1` counts equal sets, `pair_f1` pairs of products that share a bundle. All are
      summed over the sessions before dividing (micro). `valid_rate` is the share of sessions with a predicted set of
      two or more products.

    A ratio with denominator 0 is 0.0. Raises ValueError if the lengths differ.
    """
    return from_counts(session_counts(predicted, truth).sum(axis=0))


def session_counts(predicted: Sequence[Bundles], truth: Sequence[Bundles]) -> np.ndarray:
    """What each session adds to the metrics: float64 [n_sessions, len(STATISTICS)], columns as in `STATISTICS`.

    Rows of several domains may be stacked; their sum then scores the pooled sessions. Raises ValueError if the lengths
    differ.
    """
    if len(predicted) != len(truth):
        raise ValueError(
            f"{len(predicted)} sessions are predicted but {len(truth)} have a truth; give one of each per session"
        )
    rows = [_count(*session) for session in zip(predicted, truth, strict=True)]
    return np.array(rows, dtype=np.float64).reshape(-1, len(STATISTICS))


def from_counts(sums: np.ndarray) -> dict[str, dict]:
    """The three groups of `score` from summed rows of `session_counts`, [..., len(STATISTICS)].

    A single sum [len(STATISTICS)] gives Python numbers; leading axes (say bootstrap resamples) give arrays of that shape.
    """
    s = dict(zip(STATISTICS, np.moveaxis(np.asarray(sums), -1, 0), strict=True))
    coverage = _ratio(s["covered"], s["hits"])
    groups = {
        "paper": {
            "precision": _ratio(s["precision"], s["answered"]),
            "recall": _ratio(s["recall"], s["answered"]),
            "coverage": coverage,
            "n_answered": s["answered"].astype(int),
        },
        "paper_all": {
            "precision": _ratio(s["precision"], s["sessions"]),
            "recall": _ratio(s["recall"], s["sessions"]),
            "coverage": coverage,
        },
        "strict": {
            "precision": _ratio(s["overlap"], s["predicted"]),
            "recall": _ratio(s["overlap"], s["true"]),
            "f1": _ratio(2 * s["overlap"], s["predicted"] + s["true"]),
            "exact_f1": _ratio(2 * s["exact"], s["predicted"] + s["true"]),
            "pair_f1": _ratio(2 * s["common_pairs"], s["predicted_pairs"] + s["true_pairs"]),
            "valid_rate": _ratio(s["valid"], s["sessions"]),
        },
    }
    if np.ndim(sums) > 1:
        return groups
    return {group: {name: value.item() for name, value in values.items()} for group, values in groups.items()}


def jaccard(a: frozenset[int], b: frozenset[int]) -> float:
    """|a ∩ b| / |a ∪ b|, and 0 for two empty sets."""
    union = len(a | b)
    return len(a & b) / union if union else 0.0


def _count(predicted: Bundles, truth: Bundles) -> tuple[float, ...]:
    """One session's row, in the order of `STATISTICS`."""
    true = [frozenset(bundle) for bundle in truth]
    # The predecessor drops single products before it removes repeats, so a bundle that lists one product twice stays.
    listed = [frozenset(bundle) for bundle in predicted if len(bundle) > 1]
    holders = [(bundle, next((t for t in true if bundle <= t), None)) for bundle in listed]
    covered = [len(bundle) / len(holder) for bundle, holder in holders if holder]
    hits = len(covered)

    distinct = {frozenset(bundle): None for bundle in predicted}.keys()
    predicted_pairs, true_pairs = _pairs(distinct), _pairs(true)
    return (
        1,
        bool(listed),
        hits / len(listed) if listed else 0,
        hits / len(true) if true else 0,
        hits,
        sum(covered),
        len(distinct),
        len(true),
        matched_overlap(distinct, true),
        len(distinct & set(true)),
        len(predicted_pairs),
        len(true_pairs),
        len(predicted_pairs & true_pairs),
        any(len(bundle) > 1 for bundle in distinct),
    )


def matched_overlap(predicted: Collection[frozenset[int]], true: Collection[frozenset[int]]) -> float:
    """The largest summed Jaccard of any one-to-one assignment of predicted sets to true bundles."""
    from scipy.optimize import linear_sum_assignment

    if not predicted or not true:
        return 0.0
    similarity = np.array([[jaccard(p, t) for t in true] for p in predicted])
    return similarity[linear_sum_assignment(similarity, maximize=True)].sum()


def _pairs(bundles: Collection[frozenset[int]]) -> set[tuple[int, int]]:
    """All unordered pairs of products that share a bundle."""
    return {pair for bundle in bundles for pair in combinations(sorted(bundle), 2)}


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Elementwise, and 0 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.zeros(np.shape(numerator)), where=np.asarray(denominator) != 0)
