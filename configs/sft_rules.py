"""The main job: rules from a teacher's self-reflection in the prompt, LoRA fine-tuning on the true bundles, evaluation.

    python launch.py --config=configs/sft_rules.py

Runs on the synthetic demo domain with SmolLM2-135M as the student, and as a stand-in for the teacher. Three minutes on two
CPU cores when measured, with packages and model on disk. docs/results/demo.md has the table that came out.

Real data (docs/data.md says where to get it):

    python launch.py --config=configs/sft_rules.py --config.data.source=bundlerec --config.data.root=DIR \\
        --config.data.domains="('electronic','clothing')"

`--config=configs/sft_rules.py:smoke` runs in seconds with a tiny random student.
"""

from configs.base import base, variant


def get_config(arg: str = ""):
    config = base("sft_rules")
    config.knowledge.formats = ("rules",)
    return variant(config, arg)
