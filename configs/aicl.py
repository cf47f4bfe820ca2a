"""The predecessor AICL (arXiv 2312.16262): the teacher works out rules on the nearest training session, then bundles the test session.

    python launch.py --config=configs/aicl.py --config.teacher.source=MODEL

At most eleven teacher calls per test session, so with a small model on a CPU a matter of hours on real data
(`--config.eval.max_sessions=20` asks about a few). The model may be the student's own, the default, or a student that
was trained to write: its adapter's README.md says how to save it merged, as a model folder. `:smoke` runs in a minute.
"""

from configs.base import base, variant


def get_config(arg: str = ""):
    config = variant(base("aicl"), arg)
    config.job = "aicl"
    config.knowledge.max_new_tokens = 200  # of one turn
    if arg == "smoke":
        config.teacher.update(kind="hf", source="tiny-random")
        config.knowledge.max_new_tokens = 8
        config.eval.max_sessions = 3
    return config
