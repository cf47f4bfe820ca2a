"""No knowledge in the prompt: the student is fine-tuned on the true bundles alone. What knowledge is worth is measured against this.

    python launch.py --config=configs/sft_plain.py --config.data.source=bundlerec --config.data.root=DIR \\
        --config.data.domains="('electronic','clothing')"

Ten minutes on two CPU cores when measured, both domains. The student is that of all configs here but sft_text and
sft_thoughts (docs/results/recipe.md says how it was found): a head on the states of its sixth layer judges which products
belong together, fine-tuned with LoRA below it; the 24 layers behind are not computed, and an answer is the grouping
with the best strict F1 to be expected in its session. The row "frozen student" is the untrained one: the same head on
the untrained states. `:smoke` runs in seconds.
"""

from configs.base import base, variant


def get_config(arg: str = ""):
    config = base("sft_plain")
    config.knowledge.formats = ()
    return variant(config, arg)
