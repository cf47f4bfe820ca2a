"""How good predicted bundles are: metrics, baselines, statistics and kinds of error; pure functions."""

from kdjax.evaluation.baselines import TRAINED, run_baselines
from kdjax.evaluation.metrics import STATISTICS, from_counts, matched_overlap, score, session_counts
from kdjax.evaluation.pairs import pair_metrics, reliability, share_a_bundle
from kdjax.evaluation.statistics import Difference, bootstrap_interval, holm, paired_bootstrap
from kdjax.evaluation.verdicts import KINDS, Verdict, errors_by_kind

__all__ = [
    "KINDS",
    "STATISTICS",
    "TRAINED",
    "Difference",
    "Verdict",
    "bootstrap_interval",
    "errors_by_kind",
    "from_counts",
    "holm",
    "matched_overlap",
    "pair_metrics",
    "paired_bootstrap",
    "reliability",
    "run_baselines",
    "score",
    "session_counts",
    "share_a_bundle",
]
