"""Frequent patterns in the prompt: category sets mined from the training bundles (no teacher), then LoRA fine-tuning.

    python launch.py --config=configs/sft_patterns.py

As long as sft_rules without its teacher pass. `:smoke` runs in seconds.
"""

from configs.base import base, variant


def get_config(arg: str = ""):
    config = base("sft_patterns")
    config.knowledge.formats = ("patterns",)
    return variant(config, arg)
