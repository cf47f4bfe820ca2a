"""Training changes the adapter and nothing else, and computes it in float32 whatever the base is kept in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training_helpers import PAD, one_group, random_examples

from kdjax.sources.tiny import write_tiny_model
from kdjax.student import LoraConfig, load_student
from kdjax.training import Trainer
from kdjax.training.batches import lay_out
from kdjax.training.step import adamw, learning_rate_schedule


@pytest.mark.parametrize(
    ("dtype", "quantization"), [("float32", None), ("bfloat16", None), ("bfloat16", "int8"), ("float32", "nf4")]
)
def test_the_base_is_bit_unchanged(tmp_path, dtype, quantization):
    write_tiny_model(tmp_path)
    lora = LoraConfig(r=4, use_dora=True, rank_pattern={"0.self_attn.q_proj": 2})
    student = load_student(str(tmp_path), lora=lora, dtype=dtype, quantization=quantization)
    before = jax.tree.map(lambda leaf: np.asarray(leaf).tobytes(), student.base)
    examples = random_examples("a", 4, 5)
    optimizer = adamw(learning_rate_schedule(1e-2, 3, 0.0), 0.01, 1.0)
    trainer = Trainer(student.graph, student.base, optimizer, 0.0)
    state, losses = trainer.init(student.adapter), []
    batches = lay_out(examples, one_group(examples, 5), trainer.parallel.all_shares, PAD)
    for _ in range(3):
        state, metrics = trainer.step(state, batches, jax.random.key(0))
        losses.append(float(metrics["loss"]))
    assert losses[2] < losses[0]
    assert jax.tree.map(lambda leaf: np.asarray(leaf).tobytes(), student.base) == before
    assert jax.tree.map(lambda leaf: np.asarray(leaf).tobytes(), trainer.base) == before
    kinds = {leaf.dtype for leaf in jax.tree.leaves((state.adapter, state.optimizer))}
    assert kinds <= {jnp.dtype("float32"), jnp.dtype("int32")}  # int32: AdamW's count
    changed = jax.tree.map(lambda new, old: bool((new != old).any()), state.adapter, student.adapter)
    assert all(jax.tree.leaves(changed))
    assert not np.asarray(state.adapter["layers"]["self_attn"]["q_proj"]["lora_A"])[0, 2:].any(), "padding stays zero"
