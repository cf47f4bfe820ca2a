"""Throughput against PyTorch: the same training step, the real job against TRL, generation against transformers; one table.

    pip install -e ".[benchmark]"
    python launch.py --config=configs/benchmark.py

Each side runs in a process of its own, and they take turns, so that the machine's moods hit both. On a CPU
both compute in float32, on a GPU in bfloat16; JAX's default device is used, if there is one of it. Real data:

    … --config.data.source=bundlerec --config.data.root=DIR --config.data.domains="('electronic',)"

`:smoke` runs in three or four minutes (most of them torch.compile), with a tiny random student; its numbers mean nothing.
"""

from ml_collections.config_dict import create, placeholder

from configs.base import base, variant
from configs.sft_text import writes


def get_config(arg: str = ""):
    config = variant(writes(base("benchmark")), arg)  # as the other side does
    config.job = "benchmark"
    config.student.dtype = placeholder(str)  # what the device takes: float32 on a CPU, bfloat16 on a GPU
    config.eval.max_new_tokens = 64
    config.benchmark = create(
        parts=("step", "job", "generation", "startup", "growth"),
        rounds=5,  # how often each side has its turn
        step_rows=4,
        step_length=512,
        pack_length=1024,  # tokens of one of TRL's packs
        generate_batch_sizes=(4, 8, 16, 32),  # of transformers; the fastest is compared
        growth_points=5,  # how often tokens, rows and sessions are doubled, the first included
    )
    if arg == "smoke":
        config.eval.buckets = 2  # programs of several lengths, as in the real one
        config.benchmark.update(rounds=2, step_length=64, generate_batch_sizes=(4,), growth_points=1)
    return config
