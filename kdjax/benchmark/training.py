"""Training: the same step on full rows, and the real job against TRL; the losses of both sides have to agree."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import chain

import numpy as np

from kdjax.benchmark.bench import Bench, Replies, Turn, cores, more_than_median, seconds, the_same
from kdjax.errors import InputError
from kdjax.training import batch_members

# How far apart losses may be: sides that start alike stay alike, but for rounding. In bfloat16 the loss of 16 examples
# (SmolLM2-135M, about 2.4, on a CPU) is 0.02 off that of float32 on either side, and the sides are 0.01 apart.
AGREE = {"float32": 1e-3, "bfloat16": 0.05}
ROWS = 4  # examples of TRL's batch on a CPU, where that is not left to TRL; a GPU takes a step's at once


def same_step(bench: Bench) -> dict:
    """The same optimizer step on the same full rows: no sharing, no padding, every token a target."""
    settings, dtype = bench.config.benchmark, bench.config.student.dtype
    tokens = bench.text(settings.step_rows, settings.step_length + 1)
    adapter = bench.folder / "initial"
    with ExitStack() as running:
        ours = running.enter_context(bench.ours("step"))
        ours.ask(save=str(adapter))
        tried = _by_threads(bench, tokens, str(adapter)) if bench.backend == "cpu" else {}
        threads = min(tried, key=tried.__getitem__, default=cores())
        turns = {"kdjax": the_same(ours, tokens=tokens)}
        if bench.backend == "gpu":
            fused = running.enter_context(bench.ours("step", attention="cudnn"))
            turns["kdjax, cuDNN attention"] = the_same(fused, tokens=tokens)
        for name, compiled in {"torch eager": False, "torch.compile": True}.items():
            more = {"adapter": str(adapter), "compile": compiled, "threads": threads}
            side = running.enter_context(bench.theirs(name, "step", **more))
            turns[name] = the_same(side, tokens=tokens)
        first = {name: turn(0) for name, turn in turns.items()}
        replies = bench.alternate("same step", turns)
    count = settings.step_rows * settings.step_length
    for row in chain.from_iterable(replies.values()):
        row |= {"examples": settings.step_rows, "real_tokens": count, "padded_tokens": count}
    losses = _losses(first, replies)
    agree("the same step", losses, dtype)
    extra = {name: more_than_median(first[name], rows) for name, rows in replies.items()}
    return {"replies": replies, "losses": losses, "first_turn": extra, "threads": threads, "thread_seconds": tried}


def _by_threads(bench: Bench, tokens: list[list[int]], adapter: str) -> dict[int, float]:
    """Number of threads → seconds of eager torch's step, the better of two after a warm-up."""
    with bench.theirs("torch eager", "step", adapter=adapter, compile=False) as side:
        side.ask(tokens=tokens)
        counts = sorted({1, cores() // 2, cores()} - {0})
        return {n: min(seconds([side.ask(tokens=tokens, threads=n) for _ in range(2)])) for n in counts}


def real_job(bench: Bench, threads: int, eos_token: str) -> dict:
    """Optimizer steps of the real job: the same examples in the same order (a packed step holds about as many)."""
    config, work = bench.config, bench.work
    size, pack = config.train.batch_size, config.benchmark.pack_length
    # One step more than there are rounds: the first is everybody's warm-up.
    steps = [batch_members(len(work.train), size, config.seed, step) for step in range(bench.rounds + 1)]
    trl = {
        "adapter": str(bench.folder / "initial"),
        "tokenizer": str(bench.folder / "tokenizer"),
        "eos_token": eos_token,
        "order": list(chain.from_iterable(steps)),
        "batch_size": size,
        "scratch": str(bench.folder / "trl"),
        "threads": threads,
    }
    rows = ROWS if bench.backend == "cpu" else size
    padded = {"per_device_train_batch_size": rows, "gradient_checkpointing": False}
    packed = {"per_device_train_batch_size": 1, "gradient_checkpointing": False, "packing": True, "max_length": pack}
    variants = {
        "TRL, padded": padded,
        "TRL, packed": packed,
        # Packs are filled up to one length, else there would be a program for each.
        "TRL, packed, compiled": packed | {"torch_compile": True, "pad_to_multiple_of": pack},
        "TRL, as it comes": {},
    }
    with ExitStack() as running:
        ours = running.enter_context(bench.ours("train"))
        ours.ask(save=trl["adapter"])
        cold, warm = (ours.ask(warm=steps)["seconds"] for _ in range(2))
        turns: dict[str, Turn] = {"kdjax": lambda step: ours.ask(members=steps[step])}
        for name, arguments in variants.items():
            side = running.enter_context(bench.theirs(name, "train", **trl, arguments=arguments))
            turns[name] = the_same(side)
        first = {name: turn(0) for name, turn in turns.items()}
        replies = bench.alternate("real job", {name: _later(turn) for name, turn in turns.items()})
        ours.ask(save=str(bench.folder / "adapter"))
    losses = _losses(first, replies)
    packs = [name for name in variants if "packing" in variants[name]]
    pack_losses = _same_packs(bench, {name: first[name] for name in packs})
    same = [name for name in turns if name not in packs]
    for field in ("examples", "real_tokens"):
        done = {name: [row[field] for row in replies[name]] for name in same}
        if any(done[name] != done["kdjax"] for name in same):
            raise InputError(f"benchmark: the real job: the sides do not do the same work, {field} by round: {done}")
    agree("the real job", {name: losses[name] for name in same}, config.student.dtype)
    extra = {name: more_than_median(first[name], rows) for name, rows in replies.items()}
    return {
        "replies": replies,
        "losses": losses,
        "pack_losses": pack_losses,
        "first_turn": extra | {"kdjax": max(0.0, cold - warm)},
        "threads": threads,
    }


def _same_packs(bench: Bench, first: Mapping[str, dict]) -> dict[str, float]:
    """Side → loss of the examples in the first step's packs, ours among them: that examples in a pack do not see one another.

    Raises:
        InputError: they differ, or the packs hold different examples.
    """
    held = {name: reply["members"] for name, reply in first.items()}
    members = next(iter(held.values()))
    if any(other != members for other in held.values()):
        raise InputError(f"benchmark: the real job: the first packs hold different examples: {held}")
    with bench.ours("train") as side:  # anew, from the adapter that all began with
        losses = {"kdjax": side.ask(members=members)["loss"]} | {name: reply["loss"] for name, reply in first.items()}
    agree("the first packs", {name: [loss] for name, loss in losses.items()}, bench.config.student.dtype)
    return losses


def _later(turn: Turn) -> Turn:
    """The turn of the round after; the first is over."""
    return lambda number: turn(number + 1)


def _losses(first: Mapping[str, dict], replies: Replies) -> dict[str, list[float]]:
    """Side → its loss in the first step, then in each round."""
    return {name: [reply["loss"] for reply in (first[name], *rows)] for name, rows in replies.items()}


def agree(what: str, losses: Mapping[str, Sequence[float]], dtype: str) -> None:
    """Compare the losses of all sides, step by step; they start from the same adapter and compute in `dtype`.

    Raises:
        InputError: those of a step are further apart than AGREE.
    """
    for step, values in enumerate(zip(*losses.values(), strict=True)):
        if not np.ptp(values) <= AGREE[dtype]:  # a loss that is nan agrees with none
            named = ", ".join(f"{name} {value:.6f}" for name, value in zip(losses, values, strict=True))
            raise InputError(f"benchmark: {what}: the sides do not compute the same, loss of step {step}: {named}")
