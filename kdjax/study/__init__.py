"""Experiments: one cell from start to end, which layer knows most, and what a shop runs with a result. The only room
that knows all others."""

from kdjax.study.cell import run
from kdjax.study.export_job import export
from kdjax.study.generate import generate
from kdjax.study.leaderboard import score_predictions
from kdjax.study.mine import mine
from kdjax.study.predecessor import run_aicl
from kdjax.study.probe import probe
from kdjax.study.settings import default_workdir, read_flags
from kdjax.study.studies import study
from kdjax.study.team import follow
from kdjax.study.workdir import check_place

__all__ = [
    "check_place",
    "default_workdir",
    "export",
    "follow",
    "generate",
    "mine",
    "probe",
    "read_flags",
    "run",
    "run_aicl",
    "score_predictions",
    "study",
]
