"""Compile kdjax's programs for TPUs that are not there. Arguments: names of CASES. Prints a JSON object per program.

It needs libtpu, and runs in a process of its own, since libtpu writes to the terminal and locks a file.
"""

import json
import os
import re
import sys

os.environ |= {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",  # else libtpu asks Google's metadata server which machine this is
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_MIN_LOG_LEVEL": "3",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)  # what is compiled without a device cannot be read back

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

from kdjax.decoding.slots import Arrivals, Programs
from kdjax.student import LoraConfig
from kdjax.student.families import decoder_config
from kdjax.student.student import _split
from kdjax.training import TEXT, Parallel, Rows, Trainer
from kdjax.training.parallel import SHARES
from kdjax.training.step import Totals, TrainState

SHAPE = {
    "architectures": ["LlamaForCausalLM"],
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 4096,
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
    "rope_theta": 1e4,
}
HOSTS, HOST = "v5e:4x4", "v5e:2x2"  # four hosts of four chips, which train together; one, which answers by itself
CASES = {
    "pmap": {},
    "fsdp": {"kind": "mesh", "fsdp": 4},
    "both": {"kind": "mesh", "fsdp": 2, "tensor": 2},
}
ROWS, LENGTH, PREFIX, SLOTS, STEPS = 4, 128, 16, 64, 32
COLLECTIVES = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"


class Ahead(Parallel):
    """Nothing is put on devices: an array becomes its shape, dtype and, on a mesh, sharding."""

    def __init__(self, topology: str, **settings):
        devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
        super().__init__(devices=devices, **settings)
        self._processes = 1  # all processes' programs are those of this one

    def shaped(self, tree, spec: PartitionSpec):
        """`tree` as shapes that lie on the devices so."""
        sharding = NamedSharding(self._whole, spec) if self._kind == "mesh" else None
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype, sharding=sharding), tree)

    def replicate(self, tree):
        return self.shaped(tree, PartitionSpec())

    def place(self, path, array):
        return self.shaped(array, self.cut(path, array.shape))

    def put_shares(self, rows):
        return self.shaped(rows, PartitionSpec(SHARES))


def struct(*shape, dtype=jnp.int32):
    return jax.ShapeDtypeStruct(shape, dtype)


def tell(case: str, program: str, lowered) -> None:
    compiled = lowered.compile()
    text = compiled.as_text()
    calls = re.findall(rf"[ )]({COLLECTIVES})(?:-start)?\(", text)
    memory = compiled.memory_analysis().peak_memory_in_bytes
    print(json.dumps({"case": case, "program": program, "collectives": calls, "peak": memory}), flush=True)


def train(case: str, graph, adapter, base) -> None:
    parallel = Ahead(HOSTS, **CASES[case])
    assert (parallel.platform, parallel.long_rows, parallel.all_shares) == (
        "tpu",
        False,
        16 // CASES[case].get("tensor", 1),
    )
    trainer = Trainer(graph, base, optax.adamw(1e-3), 0.0, "linears", TEXT, parallel)
    each = parallel.all_shares, ROWS
    axis, targets = struct(*each, LENGTH), struct(*each, 16)
    rows = Rows(axis, axis, axis, targets, targets, struct(*each, 16, dtype=jnp.float32), LENGTH)
    totals = Totals(adapter, struct(dtype=jnp.float32), struct(dtype=jnp.float32))
    prefix, key = struct(PREFIX), struct(2, dtype=jnp.uint32)
    shared = map(parallel.replicate, (adapter, prefix, key, totals))
    adapter, prefix, key, totals = shared
    arguments = adapter, trainer.base, prefix, parallel.put_shares(rows), key, totals
    tell(case, "accumulate", trainer._accumulate.lower(*arguments))
    moments = jax.eval_shape(trainer._optimizer.init, adapter)
    state = TrainState(adapter, moments, struct())
    # Each process updates its own copy.
    state, totals = map(Ahead(HOST, **CASES[case]).replicate, (state, totals))
    if case == "pmap":  # jit does not know the devices by itself
        state, totals = map(Ahead(HOST, kind="mesh").replicate, (state, totals))
    tell(case, "update", trainer._update.lower(state, totals))


def answer(case: str, config, graph, adapter, base) -> None:
    parallel = Ahead(HOST, **CASES[case])
    programs = Programs(graph, config, jnp.dtype(jnp.bfloat16), STEPS, (0,))
    kv = struct(config.num_hidden_layers, config.num_key_value_heads, PREFIX, config.head_dim, dtype=jnp.bfloat16)

    def shares(tree):
        return parallel.put_shares(
            jax.tree.map(lambda leaf: struct(parallel.shares, *leaf.shape, dtype=leaf.dtype), tree)
        )

    model = *(parallel.replicate(adapter), parallel.place_base(base)), parallel.replicate((kv, kv)), None
    slots = shares(jax.eval_shape(lambda: programs.vacant(SLOTS, LENGTH)))
    new = shares(Arrivals(*[struct(16, LENGTH)] * 2, *[struct(SLOTS)] * 4))
    admit = parallel.spread(programs.admit, (None, None, None, None, 0, 0), donate_argnums=5)
    tell(case, "admit", admit.lower(*model, new, slots))
    advance = parallel.spread(programs.advance, (None, None, None, None, None, 0), donate_argnums=5)
    tell(case, "advance", advance.lower(*model, parallel.replicate(struct()), slots))


assert jax.default_backend() == "cpu"
config = decoder_config(SHAPE, "test")
graph, *shapes = _split(config, LoraConfig(r=4), jnp.dtype(jnp.bfloat16), None)
adapter, base = (jax.tree.map(lambda leaf: struct(*leaf.shape, dtype=leaf.dtype), tree) for tree in shapes)
for case in sys.argv[1:]:
    train(case, graph, adapter, base)
    answer(case, config, graph, adapter, base)
