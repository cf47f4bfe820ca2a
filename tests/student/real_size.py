"""Run by test_real_sizes.py, in a process of its own so that its memory can be told: load, one training step, one generation.

python real_size.py FOLDER       prints a line of JSON
"""

import json
import resource
import sys
import time

import jax
import numpy as np
import torch
from torch_models import reference

from kdjax.decoding import Constraint, Generator
from kdjax.prompting import Example
from kdjax.student import LoraConfig, load_student
from kdjax.training import Trainer
from kdjax.training.batches import lay_out, plan_groups
from kdjax.training.step import adamw, learning_rate_schedule

LENGTH, ROWS, TARGETS, NEW = 128, 4, 8, 16


class Account:
    """Seconds of each piece of work, and the process's peak memory after it."""

    def __init__(self):
        self.rows = {}

    def __call__(self, name: str, work, *args, **kwargs):
        started = time.perf_counter()
        result = jax.block_until_ready(work(*args, **kwargs))
        self.rows[name] = {
            "seconds": round(time.perf_counter() - started, 1),
            "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        }
        return result


def main(folder: str) -> None:
    """Each step twice: the first time with compilation."""
    account, rng = Account(), np.random.default_rng(0)
    student = account("load", load_student, folder, lora=LoraConfig(r=16, lora_alpha=32))
    drawn = rng.integers(3, 259, (ROWS, LENGTH)).tolist()
    examples = [
        Example("d", str(i), "", tuple(ids[:-TARGETS]), "", tuple(ids[-TARGETS:])) for i, ids in enumerate(drawn)
    ]
    trainer = Trainer(student.graph, student.base, adamw(learning_rate_schedule(1e-3, 2, 0.0), 0.0, 1.0), 0.0)
    batches = lay_out(
        examples,
        plan_groups(examples, ROWS * LENGTH, trainer.parallel.long_rows),
        trainer.parallel.all_shares,
        student.tokenizer.eos_id,
    )
    state, losses = trainer.init(student.adapter), []
    for name in ("first step", "step"):
        state, metrics = account(name, trainer.step, state, batches, jax.random.key(0))
        losses.append(float(metrics["loss"]))
    prompts = [Example("d", e.session_id, "", e.prompt_ids, "", ()) for e in examples]
    generator = Generator(student, max_new_tokens=NEW, rows_per_device=ROWS, buckets=1)
    for name in ("first generation", "generation"):
        answers = account(name, generator, state.adapter, prompts, [4] * ROWS, Constraint("none"))
    tokens = np.asarray(drawn[:1])[:, :32]
    expected = reference(folder)(torch.tensor(tokens)).logits.detach().numpy()
    difference = float(np.abs(np.asarray(student.logits(tokens)) - expected).max())
    parameters = sum(leaf.size for leaf in jax.tree.leaves(student.base))
    told = {"parameters": parameters, "losses": losses, "answers": len(answers), "difference": difference}
    print(json.dumps(told | {"account": account.rows}))


if __name__ == "__main__":
    main(sys.argv[1])
