"""What is compiled for four devices: of each program its collectives and temporary bytes, as JSON on stdout.

Arguments: a way and a kind each, as "fsdp/dropout".
"""

import json
import re
import sys
from collections import Counter
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax

from kdjax.student import LoraConfig
from kdjax.student.families import decoder_config
from kdjax.student.student import _split
from kdjax.training import TEXT, Parallel, Rows, Trainer
from kdjax.training.step import Totals

SHAPE = {
    "architectures": ["LlamaForCausalLM"],
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 4096,
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "tie_word_embeddings": False,
    "rope_theta": 1e4,
}
WAYS = {
    "pmap": {},
    "fsdp": {"kind": "mesh", "fsdp": 4},
    "tensor": {"kind": "mesh", "tensor": 4},
    "both": {"kind": "mesh", "fsdp": 2, "tensor": 2},
}
KINDS = {
    "plain": {},
    "dropout": {"dropout": 0.1},
    "int8": {"quantization": "int8"},
    "full": {"remat": "full"},
}
ROWS, LENGTH, PREFIX, TARGETS = 32, 256, 16, 16
COLLECTIVES = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"


def accumulate(way: str, dropout: float = 0.0, quantization: str | None = None, remat: str = "linears"):
    """A micro-batch of ROWS rows, the same work however many shares it is cut into."""
    parallel = Parallel(**WAYS[way])
    graph, *shapes = _split(decoder_config(SHAPE, "test"), LoraConfig(r=4), jnp.dtype("bfloat16"), quantization)
    adapter, base = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    trainer = Trainer(graph, base, optax.sgd(1.0), dropout, remat, TEXT, parallel)
    each = parallel.all_shares, ROWS // parallel.all_shares
    axis, targets = np.zeros((*each, LENGTH), np.int32), np.zeros((*each, TARGETS), np.int32)
    rows = Rows(axis, axis, axis, targets, targets, targets.astype(np.float32), LENGTH)
    totals = Totals(adapter, np.float32(0), np.float32(0))
    adapter, prefix, key, totals = map(
        parallel.replicate, (adapter, np.zeros(PREFIX, np.int32), np.zeros(2, np.uint32), totals)
    )
    return trainer._accumulate.lower(adapter, trainer.base, prefix, parallel.put_shares(rows), key, totals).compile()


# Rows side by side, as on accelerators; a CPU's loops over examples have exchanges of their own.
for module in ("attention", "lora"):
    mock.patch(f"kdjax.student.{module}.target_platform", lambda: "tpu").start()
found = {}
for name in sys.argv[1:]:
    way, kind = name.split("/")
    compiled = accumulate(way, **KINDS[kind])
    calls = Counter(re.findall(rf"[ )]({COLLECTIVES})(?:-start)?\(", compiled.as_text()))
    found[name] = calls | {"temporaries": compiled.memory_analysis().temp_size_in_bytes}
print(json.dumps(found))
