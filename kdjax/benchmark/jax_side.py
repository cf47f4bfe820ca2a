"""The JAX side: kdjax's own training step and generator, fed by commands.

python -m kdjax.benchmark.jax_side '{"task": …}' answers commands on its pipes, see `kdjax.benchmark.channel`.
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

import jax
import numpy as np

from kdjax.benchmark.channel import Channel
from kdjax.benchmark.workload import load
from kdjax.decoding import Constraint, Generator
from kdjax.student import LoraConfig, Student, load_student
from kdjax.training import MicroBatch, Rows, Trainer, adamw, lay_out, plan_groups
from kdjax.training.clock import compile_seconds
from kdjax.training.step import TrainState


def main() -> None:
    """Do the task that the settings name until the channel closes."""
    settings, channel = json.loads(sys.argv[1]), Channel(peak_bytes)
    {"step": step, "train": train, "generate": generate, "matmul": matmul}[settings["task"]](settings, channel)


def peak_bytes() -> int | None:
    """The largest memory in use on the device so far, None on a CPU. Nothing is waited for: what is answered has been fetched."""
    statistics = jax.local_devices()[0].memory_stats()
    return statistics and statistics["peak_bytes_in_use"]


def _student(settings) -> Student:
    return load_student(
        settings["source"],
        lora=LoraConfig(**settings["lora"]) if settings.get("lora") else None,
        adapter=settings.get("adapter"),
        dtype=settings["dtype"],
        attention=settings["attention"],
    )


def _trainer(student: Student, settings) -> Trainer:
    optimizer = adamw(lambda step: settings["learning_rate"], weight_decay=0.0, max_grad_norm=1.0)
    return Trainer(student.graph, student.base, optimizer, 0.0, settings["remat"])


def _save(student: Student, state: TrainState, folder: str, channel: Channel) -> None:
    """{"save": folder}: the adapter as it is, for the other side."""
    student.adapter = jax.device_get(state.adapter)  # a copy: the next step takes over the state's buffers
    student.save_adapter(folder)
    channel.reply()


def step(settings, channel: Channel) -> None:
    """{"tokens": [[…]]}: one optimizer step on all next-token predictions of a batch without padding. {"save": folder}."""
    student = _student(settings)
    trainer = _trainer(student, settings)
    state = trainer.init(student.adapter)
    for command in channel:
        if "save" in command:
            _save(student, state, command["save"], channel)
            continue
        compiled = compile_seconds()
        batch = _whole_rows(np.asarray(command["tokens"], np.int32), trainer.parallel.all_shares)
        state, metrics = jax.block_until_ready(trainer.step(state, [batch], jax.random.key(0)))
        channel.reply(loss=float(metrics["loss"]), compile_seconds=compile_seconds() - compiled)


def _whole_rows(tokens: np.ndarray, devices: int) -> MicroBatch:
    """Every token but the first of a row is a target; nothing is shared and nothing padded."""
    batch, length = tokens.shape
    positions = np.tile(np.arange(length - 1, dtype=np.int32), (batch, 1))
    rows = Rows(
        tokens=tokens[:, :-1],
        starts=np.zeros((batch, length - 1), np.int32),
        ids=np.tile(np.arange(batch, dtype=np.int32)[:, None], (1, length - 1)),
        positions=positions,
        labels=tokens[:, 1:],
        weights=np.ones(positions.shape, np.float32),
        longest=length - 1,
    )
    rows = jax.tree.map(lambda array: array.reshape(devices, -1, *array.shape[1:]), rows)
    return MicroBatch(np.zeros(0, np.int32), rows, tuple(range(batch)))


def train(settings, channel: Channel) -> None:
    """{"members": […]}: one optimizer step on these examples. {"warm": [[…]]}: compile what these steps need. {"save": folder}."""
    student = _student(settings)
    trainer = _trainer(student, settings)
    state = trainer.init(student.adapter)
    examples = load(settings["workload"]).train
    groups = plan_groups(examples, settings["micro_batch_tokens"], trainer.parallel.long_rows)
    key = jax.random.key(0)

    def batches(members: Sequence[int]) -> list[MicroBatch]:
        chosen = [examples[i] for i in members]
        return lay_out(chosen, groups, trainer.parallel.all_shares, student.tokenizer.eos_id, ids=members)

    for command in channel:
        compiled = compile_seconds()
        if "save" in command:
            _save(student, state, command["save"], channel)
            continue
        if "warm" in command:
            spare = trainer.init(student.adapter)  # what is learnt from the warm-up is thrown away
            planned = (batch for members in command["warm"] for batch in batches(members))
            for batch in {batch.rows.tokens.shape: batch for batch in planned}.values():
                spare, metrics = trainer.step(spare, [batch], key)
            channel.reply(loss=float(metrics["loss"]))
            continue
        laid = batches(command["members"])
        state, metrics = jax.block_until_ready(trainer.step(state, laid, key))
        channel.reply(
            loss=float(metrics["loss"]),
            compile_seconds=compile_seconds() - compiled,
            examples=len(command["members"]),
            real_tokens=sum(len(examples[i]) for i in command["members"]),
            padded_tokens=sum(batch.computed_tokens for batch in laid),
        )


def generate(settings, channel: Channel) -> None:
    """{"members": […], "mode", "one_by_one"?}: answers to test prompts. {"gap": [member, ids, tokens]}: how far each
    token's logit behind these ids is below the largest."""
    student = _student(settings)
    work = load(settings["workload"])
    sizes = {
        "max_new_tokens": settings["max_new_tokens"],
        "rows_per_device": settings["batch_size"],
        "buckets": settings["buckets"],
    }
    generators = {kind: kind(student, **sizes) for kind in (Generator, OneByOne)}
    for command in channel:
        compiled = compile_seconds()
        if "gap" in command:
            member, ids, tokens = command["gap"]
            logits = np.asarray(student.logits(np.asarray([[*work.test[member].prompt_ids, *ids]])))[0, -1]
            channel.reply(gaps=(logits.max() - logits[tokens]).tolist())
            continue
        generator = generators[OneByOne if command.get("one_by_one") else Generator]
        members, calls, joined = command["members"], generator.calls, generator.joined
        prompts = [work.test[i] for i in members]
        completions = generator(
            student.adapter, prompts, [work.n_items[i] for i in members], Constraint(command["mode"])
        )
        channel.reply(
            answers=[list(completion.token_ids) for completion in completions],
            compile_seconds=compile_seconds() - compiled,
            real_tokens=sum(len(prompt) for prompt in prompts),
            calls=generator.calls - calls,
            joined=generator.joined - joined,
        )


class OneByOne(Generator):
    """Waits for forced tokens, too: what it is worth that the generator does not."""

    def _compile(self, n_items, constraint):
        automaton, starts = super()._compile(n_items, constraint)
        assert automaton is not None
        return replace(automaton, forced=jax.numpy.full_like(automaton.forced, -1)), starts


def matmul(settings, channel: Channel) -> None:
    """The rate of plain matrix products of the student's shapes (hidden × intermediate), flop/s: what MFU is measured against."""
    hidden, inner = settings["shape"]
    rows, repeats = settings["rows"], settings["repeats"]
    # Drawn, since a GPU runs faster on zeros and ones.
    x = jax.random.normal(jax.random.key(0), (rows, hidden), settings["dtype"])
    w = jax.random.normal(jax.random.key(1), (inner, hidden), settings["dtype"])
    product = jax.jit(lambda x, w: x @ w.T)
    product(x, w).block_until_ready()
    for _ in channel:
        started = time.perf_counter()
        for _ in range(repeats):
            out = product(x, w)
        out.block_until_ready()
        seconds = time.perf_counter() - started
        channel.reply(rate=2 * rows * hidden * inner * repeats / seconds)


if __name__ == "__main__":
    main()
