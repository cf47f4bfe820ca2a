"""The measurements: each part lets its sides take turns on the same work, and returns what both replied."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from kdjax.benchmark.channel import Side
from kdjax.benchmark.workload import Workload, save
from kdjax.errors import InputError
from kdjax.reporting import Progress, RunLog, read_jsonl
from kdjax.sources import ModelFiles, cache_root
from kdjax.student import LoraConfig, load_student
from kdjax.student.families import DecoderConfig
from kdjax.training import batch_members

Replies = dict[str, list[dict]]  # side → one reply per round
ROOT = Path(__file__).resolve().parents[2]
TIE = 1e-3  # two logits nearer than this may change places by rounding


@dataclass
class Bench:
    """What all parts need: the config, the work, the model, where to write, and whom to tell."""

    config: ConfigDict
    work: Workload
    files: ModelFiles
    shape: DecoderConfig
    folder: Path
    log: RunLog

    def __post_init__(self):
        save(self.work, self.folder / "workload.json")

    @property
    def rounds(self) -> int:
        """How often each side has its turn."""
        return self.config.benchmark.rounds

    def ours(self, task: str, **more) -> Side:
        """A process of the JAX side."""
        config = self.config
        settings = {
            "task": task,
            "source": config.student.source,
            "dtype": config.student.dtype,
            "lora": {"r": config.lora.r, "lora_alpha": config.lora.lora_alpha},
            "learning_rate": config.train.learning_rate,
            "micro_batch_tokens": config.train.micro_batch_tokens,
            "workload": str(self.folder / "workload.json"),
            "xla_cache": str(cache_root() / "xla"),
        }
        return Side("kdjax", "jax_side", settings | more)

    def theirs(self, name: str, task: str, **more) -> Side:
        """A process of the PyTorch side."""
        config = self.config
        settings = {
            "task": task,
            "folder": str(self.plain_model()),
            "lora": {"r": config.lora.r, "lora_alpha": config.lora.lora_alpha},
            "learning_rate": config.train.learning_rate,
            "threads": len(os.sched_getaffinity(0)),
            "workload": str(self.folder / "workload.json"),
        }
        return Side(name, "torch_side", settings | more)

    def plain_model(self) -> Path:
        """The model as a Hugging Face folder: TRL trains no GGUF file."""
        if self.files.gguf is None:
            return self.files.folder.resolve()
        folder = self.folder / "model"
        if not (folder / "config.json").is_file():
            load_student(self.files.source, lora=LoraConfig(r=1, lora_alpha=1)).save_merged(folder)  # B is zero
        return folder

    def alternate(self, what: str, turns: Mapping[str, Callable[[int], dict]]) -> Replies:
        """A B A B …: in each round every side does the same unit of work, alone on the machine."""
        replies: Replies = {name: [] for name in turns}
        with Progress(self.rounds * len(turns), what, self.log, every=0) as progress:
            for number in range(self.rounds):
                for name, turn in turns.items():
                    replies[name].append(turn(number))
                    progress.update(side=name, seconds=replies[name][-1]["seconds"])
        return replies


def matmul_rate(bench: Bench) -> float:
    """flop/s of plain matrix products of the student's shapes, the best of five tries."""
    shape = (bench.shape.hidden_size, bench.shape.intermediate_size)
    with bench.ours("matmul", shape=shape) as side:
        return max(side.ask()["rate"] for _ in range(5))


def same_step(bench: Bench) -> dict:
    """The same optimizer step on the same full rows: no sharing, no padding, every token a target."""
    settings = bench.config.benchmark
    tokens = _rows(bench, settings.step_rows, settings.step_length + 1)
    cores = len(os.sched_getaffinity(0))
    with (
        bench.ours("step") as ours,
        bench.theirs("torch eager", "step", compile=False) as eager,
        bench.theirs("torch.compile", "step", compile=True) as compiled,
    ):
        sides = {side.name: side for side in (ours, eager, compiled)}
        first = {name: side.ask(tokens=tokens) for name, side in sides.items()}
        losses = {name: reply["loss"] for name, reply in first.items()}
        if max(losses.values()) - min(losses.values()) > 1e-3:
            raise InputError(f"benchmark: the sides do not compute the same loss: {losses}")
        counts = {1, cores // 2, cores} - {0}
        seconds = {n: min(eager.ask(tokens=tokens, threads=n)["seconds"] for _ in range(2)) for n in sorted(counts)}
        threads = min(seconds, key=seconds.get)
        for side in (eager, compiled):
            side.ask(tokens=tokens, threads=threads)
        turns = {name: lambda _, side=side: side.ask(tokens=tokens) for name, side in sides.items()}
        replies = bench.alternate("same step", turns)
    count = settings.step_rows * settings.step_length
    for name, rows in replies.items():
        for row in rows:
            row |= {"examples": settings.step_rows, "real_tokens": count, "padded_tokens": count}
            row.setdefault("compile_seconds", 0.0)
        replies[name][0]["compile_seconds"] = max(0.0, first[name]["seconds"] - float(np.median(_seconds(rows))))
    return {"replies": replies, "losses": losses, "threads": threads, "thread_seconds": seconds}


def real_job(bench: Bench, threads: int, eos_token: str) -> dict:
    """Optimizer steps of the real job: the same examples in the same order (a packed step holds about as many)."""
    config, work = bench.config, bench.work
    size = config.train.batch_size
    # One step more than there are rounds: the first is everybody's warm-up.
    steps = [batch_members(len(work.train), size, config.seed, step) for step in range(bench.rounds + 1)]
    trl = {
        "tokenizer": str(bench.folder / "tokenizer"),
        "eos_token": eos_token,
        "order": list(chain.from_iterable(steps)),
        "batch_size": size,
        "pack_length": config.benchmark.pack_length,
        "scratch": str(bench.folder / "trl"),
        "threads": threads,
    }
    variants = {
        "TRL, padded": {"packing": False, "gradient_checkpointing": False},
        "TRL, packed": {"packing": True, "gradient_checkpointing": False},
        "TRL, as it comes": {"packing": False, "gradient_checkpointing": True},
    }
    with ExitStack() as running:
        ours = running.enter_context(bench.ours("train"))
        compiled = ours.ask(warm=steps)["compile_seconds"]
        turns = {"kdjax": lambda step: ours.ask(members=steps[step])}
        for name, variant in variants.items():
            side = running.enter_context(bench.theirs(name, "train", **trl, **variant))
            turns[name] = lambda step, side=side: side.ask()
        for turn in turns.values():
            turn(0)
        after = {name: lambda number, turn=turn: turn(number + 1) for name, turn in turns.items()}
        replies = bench.alternate("real job", after)
        replies["kdjax"][0]["compile_seconds"] = compiled
        ours.ask(save=str(bench.folder / "adapter"))
    return {"replies": replies}


def generation(bench: Bench, threads: int, eos_ids: tuple[int, ...]) -> dict:
    """Greedy answers to the test prompts with the adapter that the real job left; all sessions, a share of them per round."""
    settings, count = bench.config.benchmark, len(bench.work.test)
    steps = bench.config.eval.max_new_tokens
    parts = [list(range(r, count, bench.rounds)) for r in range(bench.rounds)]
    adapter = {"adapter": str(bench.folder / "adapter"), "max_new_tokens": steps}
    ours = {"lora": None, "batch_size": bench.config.eval.batch_size, "buckets": bench.config.eval.buckets}
    with (
        bench.ours("generate", **adapter, **ours) as jax_side,
        bench.theirs("transformers", "generate", **adapter, threads=threads, eos_ids=eos_ids) as torch_side,
    ):
        tries = {
            size: torch_side.ask(members=parts[0], batch_size=size)["seconds"] for size in settings.generate_batch_sizes
        }
        best = min(tries, key=tries.get)
        modes = ("none", "json", "items")
        compiled = {mode: jax_side.ask(members=list(range(count)), mode=mode)["compile_seconds"] for mode in modes}
        turns = {f"kdjax, {mode}": lambda r, mode=mode: jax_side.ask(members=parts[r], mode=mode) for mode in modes}
        turns["transformers"] = lambda r: torch_side.ask(members=parts[r], batch_size=best)
        replies = bench.alternate("generation", turns)
        for mode in modes:
            replies[f"kdjax, {mode}"][0]["compile_seconds"] = compiled[mode]
        compared = _same_answers(jax_side, parts, replies["kdjax, none"], replies["transformers"])
    for rows in replies.values():
        for row, part in zip(rows, parts, strict=True):
            row["examples"] = len(part)
            row["new_tokens"] = sum(map(len, row.pop("answers")))
    return {"replies": replies, "batch_sizes": tries, "answers": compared}


def _same_answers(jax_side: Side, parts, ours: list[dict], theirs: list[dict]) -> dict:
    """How many answers are equal; where one differs, whether the two tokens were a tie within rounding."""
    equal = ties = 0
    for members, a, b in zip(parts, ours, theirs, strict=True):
        for member, x, y in zip(members, a["answers"], b["answers"], strict=True):
            if x == y:
                equal += 1
                continue
            same = next(i for i in range(max(len(x), len(y))) if x[i : i + 1] != y[i : i + 1])
            low, high = jax_side.ask(gap=[member, x[:same]])["top"]
            if high - low > TIE:
                raise InputError(
                    f"benchmark: test prompt {member}: kdjax says {x}, transformers {y}, and no tie ({low}, {high})"
                )
            ties += 1
    return {"equal": equal, "ties": ties}


def start_up(bench: Bench) -> dict:
    """Seconds from the command to the first training step of the main job: with an empty compile cache, then with a full one."""
    found = {}
    again = bench.folder / "startup"
    shutil.rmtree(again, ignore_errors=True)  # of a benchmark that was killed here: cold must be cold
    cache = again / "cache"
    cache.mkdir(parents=True)
    (cache / "models").symlink_to(cache_root() / "models")
    for name in ("cold", "warm"):
        workdir = again / name
        command = [
            *(sys.executable, "launch.py", "--config=configs/sft_rules.py", f"--workdir={workdir}"),
            *("--config.teacher.kind=annotations", "--config.train.max_steps=1", "--config.eval.max_sessions=1"),
            f"--config.student.source={bench.config.student.source}",
        ]
        started = time.time()
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | {"KDJAX_CACHE": str(cache)}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise InputError(f"benchmark: {' '.join(command)} failed:\n{done.stderr[-2000:]}")
        step = next(row for row in read_jsonl(workdir / "log.jsonl") if row["event"] == "step")
        found[name] = datetime.fromisoformat(step["time"]).timestamp() - started
    return found


def growth(bench: Bench) -> dict:
    """Microseconds per token: of a training step by the length of a single row and by the number of rows, of generation by that of sessions.

    Generation's are tokens of prompts, each counted as if nothing were shared.
    """
    lengths = [n for n in (256, 512, 1024, 2048, 4096) if n <= bench.shape.max_position_embeddings]
    sessions = [n for n in (10, 20, 40, 80) if n <= len(bench.work.test)]
    settings = bench.config.eval
    with bench.ours("step") as side:

        def step(rows: int, length: int) -> float:
            tokens = _rows(bench, rows, length + 1)
            return _per_token(bench, side, f"a step of {rows} × {length} tokens", rows * length, {"tokens": tokens})

        by_length = {length: step(1, length) for length in lengths}
        by_rows = {rows: step(rows, 256) for rows in (1, 2, 4, 8, 16)}
    sizes = {"max_new_tokens": settings.max_new_tokens, "batch_size": settings.batch_size, "buckets": settings.buckets}
    with bench.ours("generate", **sizes) as side:

        def answers(count: int) -> float:
            tokens = sum(map(len, bench.work.test[:count]))
            command = {"members": list(range(count)), "mode": "items"}
            return _per_token(bench, side, f"answers to {count} sessions", tokens, command)

        return {"length": by_length, "rows": by_rows, "sessions": {count: answers(count) for count in sessions}}


def _per_token(bench: Bench, side: Side, what: str, tokens: int, command: dict) -> float:
    """Microseconds, the median of three turns after a warm-up."""
    side.ask(**command)
    replies = [side.ask(**command) for _ in range(3)]
    if any(reply["compile_seconds"] for reply in replies):
        raise InputError(f"benchmark: {what}: compiled again after the warm-up")
    found = 1e6 * float(np.median(_seconds(replies))) / tokens
    bench.log.say(f"growth: {what}, {found:.0f} µs per token")
    return found


def _rows(bench: Bench, rows: int, length: int) -> list[list[int]]:
    """Full rows of real text: training examples one after the other, cut."""
    stream = np.concatenate([(*e.prompt_ids, *e.completion_ids) for e in bench.work.train])
    return np.resize(stream, (rows, length)).tolist()


def _seconds(replies: list[dict]) -> list[float]:
    return [reply["seconds"] for reply in replies]


def versions() -> dict[str, str]:
    """Of what both sides run on."""
    return {name: version(name) for name in ("jax", "jaxlib", "flax", "torch", "transformers", "peft", "trl", "numpy")}


def read(path: Path) -> dict:
    """The results so far, empty where there are none."""
    return json.loads(path.read_text()) if path.is_file() else {}
