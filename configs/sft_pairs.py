"""A student that judges pairs: a head on the states of its ninth layer says which products belong together, fine-tuned with LoRA below it.

    python launch.py --config=configs/sft_pairs.py --config.data.source=bundlerec --config.data.root=DIR \\
        --config.data.domains="('electronic','clothing')"

17 minutes on two CPU cores when measured. The student writes nothing: the 21 layers behind the ninth are not computed, and an
answer is the grouping with the best strict F1 to be expected in its session, by what is believed of each pair in four orders of
the products. The row "student, before" is the frozen student: the same head on the untrained states. docs/recipe.md says how
each value here was found. `:smoke` runs in seconds.
"""

from configs.base import base, variant


def get_config(arg: str = ""):
    config = base("sft_pairs")
    config.knowledge.formats = ()
    config.prompting.update(fields=("title", "category"), title_words=8)
    config.student.answer = "pairs"
    config.lora.update(r=8, lora_alpha=16.0)
    config.train.update(learning_rate=2e-4, shuffle_products=True)
    config.eval.orders = 4
    return variant(config, arg)
