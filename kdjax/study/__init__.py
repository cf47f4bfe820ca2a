"""Experiments: one cell from start to end, which layer knows most, and what a shop runs with a result. The only room
that knows all others."""

from kdjax.study.cell import run
from kdjax.study.export_job import export
from kdjax.study.generate import generate
from kdjax.study.predecessor import run_aicl
from kdjax.study.probe import probe
from kdjax.study.settings import default_workdir
from kdjax.study.studies import study
from kdjax.study.team import follow

__all__ = ["default_workdir", "export", "follow", "generate", "probe", "run", "run_aicl", "study"]
