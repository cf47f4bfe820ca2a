"""The paper's own student: it writes its answer, with rules from a teacher's self-reflection in the prompt.

    python launch.py --config=configs/sft_text.py

The other configs judge pairs of products instead, since a student of this size that writes learns to name bundles and not to find
them (docs/results/recipe.md, section 12). Three minutes on the demo, two CPU cores. `:smoke` runs in seconds.
"""

from configs.base import base, variant

# for cells of studies: answers are written in a form that counts, products told by their whole titles and in their order
WRITES = {
    "student__answer": "text",
    "prompting__fields": ("title",),
    "prompting__title_words": 0,
    "train__shuffle_products": False,
    "eval__orders": 1,
    "eval__constraint": "items",
}


def writes(config):
    """The same for a config, with answers in whatever form (the paper's)."""
    fields = {name.replace("__", "."): value for name, value in WRITES.items()} | {"eval.constraint": "none"}
    config.update_from_flattened_dict(fields)
    return config


def get_config(arg: str = ""):
    config = writes(base("sft_text"))
    config.knowledge.max_tokens = 40  # so that no prompt of the demo exceeds 160 tokens; real data deserves more
    return variant(config, arg)
