"""The paper's own student: it writes its answer, with rules from a teacher's self-reflection in the prompt.

    python launch.py --config=configs/sft_text.py

The other configs judge pairs of products instead, since a student of this size that writes learns to name bundles and not to find
them (docs/recipe.md). Three minutes on the demo, two CPU cores. `:smoke` runs in seconds.
"""

from configs.base import base, variant


def writes(config):
    """Answers are written, products told by their whole titles."""
    config.prompting.update(fields=("title",), title_words=0)
    config.student.answer = "text"
    config.eval.orders = 1
    return config


def get_config(arg: str = ""):
    config = writes(base("sft_text"))
    config.knowledge.max_tokens = 40  # so that no prompt of the demo exceeds 160 tokens; real data deserves more
    config.train.shuffle_products = False
    return variant(config, arg)
