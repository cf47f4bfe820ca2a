"""The whole benchmark, short, with a tiny model; and what it does when a side dies or computes something else."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kdjax.benchmark.channel import Side
from kdjax.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """(folder, what was printed) of the smoke version, all rounds and all sides."""
    for name in ("torch", "peft", "trl"):
        pytest.importorskip(name)
    if not shutil.which("g++"):
        pytest.skip("torch.compile needs g++")
    folder = tmp_path_factory.mktemp("benchmark")
    command = [sys.executable, "launch.py", "--config=configs/benchmark.py:smoke", f"--workdir={folder / 'run'}"]
    env = os.environ | {"KDJAX_CACHE": str(folder / "cache")}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "run", done.stdout


def test_both_sides_are_measured_in_turns(measured):
    folder, printed = measured
    found = json.loads((folder / "results.json").read_text())
    assert set(found["step"]["replies"]) == {"kdjax", "torch eager", "torch.compile"}
    for part in ("step", "job", "generation"):
        assert {len(rows) for rows in found[part]["replies"].values()} == {2}
    turns = [
        line.split("side ")[1].split(", seconds")[0] for line in printed.splitlines() if line.startswith("same step ")
    ]
    assert turns == ["kdjax", "torch eager", "torch.compile"] * 2
    assert (folder / "benchmark.md").read_text() in printed and (folder / "benchmark.png").is_file()


def test_both_sides_do_the_same_work(measured):
    """The same loss on the same rows, the same real tokens of the same examples, the same answers to all test prompts."""
    found = json.loads((measured[0] / "results.json").read_text())
    losses = list(found["step"]["losses"].values())
    assert max(losses) - min(losses) < 1e-3
    job = found["job"]["replies"]
    for ours, padded in zip(job["kdjax"], job["TRL, padded"], strict=True):
        assert ours["examples"] == padded["examples"] and ours["real_tokens"] == padded["real_tokens"]
    for row in job["TRL, packed"]:
        assert row["examples"] > 0 and row["real_tokens"] > 0
    generation = found["generation"]
    assert generation["answers"]["equal"] + generation["answers"]["ties"] == 40
    none, theirs = generation["replies"]["kdjax, none"], generation["replies"]["transformers"]
    if not generation["answers"]["ties"]:
        assert [row["new_tokens"] for row in none] == [row["new_tokens"] for row in theirs]


def test_nothing_is_compiled_after_the_warm_up(measured):
    """The first reply carries what was compiled before the rounds; the others compile nothing."""
    found = json.loads((measured[0] / "results.json").read_text())
    for part in ("step", "job", "generation"):
        for name, rows in found[part]["replies"].items():
            assert not any(row.get("compile_seconds") for row in rows[1:]), (part, name)


def test_a_side_that_dies_is_told_with_its_last_words():
    settings = {"task": "step", "xla_cache": "/nowhere"}  # no source is named
    with Side("broken", "jax_side", settings) as side, pytest.raises(InputError, match="the side 'broken' died"):
        side.ask(tokens=[[1, 2]])


def test_the_pytorch_side_does_not_load_jax():
    code = "import sys, kdjax.benchmark.channel, kdjax.benchmark; assert not {'jax', 'flax'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
