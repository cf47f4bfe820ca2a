"""Deep thoughts as targets: the student learns to write the teacher's reasoning before it names the bundles.

    python launch.py --config=configs/sft_thoughts.py

The teacher thinks about every training session (160 in the demo), so this takes much longer than
sft_rules. `:smoke` runs in seconds.
"""

from configs.base import base, variant
from configs.sft_text import writes


def get_config(arg: str = ""):
    config = writes(base("sft_thoughts"))  # a thought is written, and an answer after it
    config.knowledge.formats = ("thoughts",)
    config.eval.max_new_tokens = 160
    return variant(config, arg)
