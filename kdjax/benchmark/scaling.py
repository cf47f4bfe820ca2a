"""What is measured of our side alone: the machine's matrix products, the start, and how the time grows with the work."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np

from kdjax.benchmark.bench import Bench, seconds
from kdjax.benchmark.channel import Side
from kdjax.errors import InputError
from kdjax.reporting import read_jsonl
from kdjax.sources import cache_root

ROOT = Path(__file__).resolve().parents[2]
ROW, SESSIONS = 256, 10  # tokens of a row and test sessions, before they are doubled


def matmul_rates(bench: Bench) -> dict[str, float]:
    """Framework → flop/s of plain matrix products of the student's shapes, the best of five turns each."""
    product = {
        "shape": (bench.shape.hidden_size, bench.shape.intermediate_size),
        "rows": 2**11 if bench.backend == "cpu" else 2**16,  # so that a GPU is not waiting for the next product
        "repeats": 10,
    }
    with bench.ours("matmul", **product) as ours, bench.theirs("torch", "matmul", **product) as theirs:
        turns = [(ours.ask()["rate"], theirs.ask()["rate"]) for _ in range(5)]
    return dict(zip(("JAX", "torch"), map(max, zip(*turns, strict=True)), strict=True))


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
            *(sys.executable, "launch.py", "--config=configs/sft_text.py", f"--workdir={workdir}"),
            *("--config.teacher.kind=annotations", f"--config.student.source={bench.config.student.source}"),
            f"--config.student.dtype={bench.config.student.dtype}",
        ]
        found[name] = first_step(command, os.environ | {"KDJAX_CACHE": str(cache)}, workdir / "log.jsonl")
    return {"seconds": found}


def first_step(command: Sequence[str], environment: Mapping[str, str], log: Path) -> float:
    """Seconds until a run has written its first training step into its log; then it is ended.

    Raises:
        InputError: it ended before; its last words are shown.
    """
    started = time.time()
    with tempfile.TemporaryFile() as words:
        run = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=words, stderr=subprocess.STDOUT)
        try:
            while True:
                ended = run.poll() is not None  # asked first: what it wrote at last is still read
                steps = [row for row in (read_jsonl(log) if log.is_file() else []) if row["event"] == "step"]
                if steps:
                    return datetime.fromisoformat(steps[0]["time"]).timestamp() - started
                if ended:
                    words.seek(0)
                    said = words.read().decode(errors="replace")
                    raise InputError(f"benchmark: {' '.join(command)} ended before its first step:\n{said[-2000:]}")
                time.sleep(0.1)
        finally:
            run.kill()
            run.wait()


def growth(bench: Bench) -> dict:
    """Microseconds per token: of a training step by the length of a single row and by the number of rows, of generation
    by that of sessions.

    Generation's are tokens of prompts, each counted as if nothing were shared.
    """
    settings, doublings = bench.config.eval, [2**i for i in range(bench.config.benchmark.growth_points)]
    lengths = [ROW * n for n in doublings if ROW * n <= bench.shape.max_position_embeddings]
    sessions = [SESSIONS * n for n in doublings if SESSIONS * n <= len(bench.work.test)]
    with bench.ours("step") as side:

        def step(rows: int, length: int) -> float:
            tokens = bench.text(rows, length + 1)
            return _per_token(bench, side, f"a step of {rows} × {length} tokens", rows * length, {"tokens": tokens})

        by_length = {length: step(1, length) for length in lengths}
        by_rows = {rows: step(rows, ROW) for rows in doublings}
    sizes = {"max_new_tokens": settings.max_new_tokens, "batch_size": settings.batch_size, "buckets": settings.buckets}
    with bench.ours("generate", **sizes) as side:

        def answers(count: int) -> float:
            tokens = sum(map(len, bench.work.test[:count]))
            command = {"members": list(range(count)), "mode": "items"}
            return _per_token(bench, side, f"answers to {count} sessions", tokens, command)

        by_sessions = {count: answers(count) for count in sessions}
    return {"microseconds": {"length": by_length, "rows": by_rows, "sessions": by_sessions}}


def _per_token(bench: Bench, side: Side, what: str, tokens: int, command: dict) -> float:
    """Microseconds, the median of three turns after a warm-up."""
    side.ask(**command)
    replies = [side.ask(**command) for _ in range(3)]
    if any(reply["compile_seconds"] for reply in replies):
        raise InputError(f"benchmark: {what}: compiled again after the warm-up")
    found = 1e6 * float(np.median(seconds(replies))) / tokens
    bench.log.say(f"growth: {what}, {found:.0f} µs per token")
    return found
