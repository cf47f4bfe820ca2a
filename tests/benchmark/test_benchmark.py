"""The whole benchmark, short, with a tiny model; and what it does when a side dies or computes something else."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from configs.benchmark import get_config
from kdjax.benchmark.bench import Bench, read
from kdjax.benchmark.channel import Side
from kdjax.benchmark.checks import check_settings
from kdjax.benchmark.generation import TIE, same_answers
from kdjax.benchmark.scaling import first_step
from kdjax.benchmark.training import agree
from kdjax.errors import InputError
from kdjax.reporting import RunLog

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
    """The same losses, the same real tokens of the same examples, the same answers to all test prompts."""
    found = json.loads((measured[0] / "results.json").read_text())
    for part, sides in {"step": ("kdjax", "torch eager", "torch.compile"), "job": ("kdjax", "TRL, padded")}.items():
        losses = np.array([found[part]["losses"][side] for side in sides])
        assert losses.shape == (len(sides), 3) and np.ptp(losses, axis=0).max() < 1e-3
    job = found["job"]["replies"]
    for ours, padded in zip(job["kdjax"], job["TRL, padded"], strict=True):
        assert ours["examples"] == padded["examples"] and ours["real_tokens"] == padded["real_tokens"]
    assert found["job"]["pack_losses"].keys() == {"kdjax", "TRL, packed", "TRL, packed, compiled"}
    assert np.ptp([*found["job"]["pack_losses"].values()]) < 1e-3
    for packed, compiled in zip(job["TRL, packed"], job["TRL, packed, compiled"], strict=True):
        assert packed["real_tokens"] == packed["padded_tokens"] == compiled["real_tokens"] < compiled["padded_tokens"]
        assert packed["members"] == compiled["members"] and len(packed["members"]) == packed["examples"]
    generation = found["generation"]
    assert generation["answers"]["equal"] + generation["answers"]["ties"] == 40
    none, theirs = generation["replies"]["kdjax, none"], generation["replies"]["transformers"]
    if not generation["answers"]["ties"]:
        assert [row["new_tokens"] for row in none] == [row["new_tokens"] for row in theirs]
    joined, waiting = (generation["replies"][f"kdjax, items{more}"][0] for more in ("", ", one by one"))
    assert joined["new_tokens"] == waiting["new_tokens"]
    assert joined["calls"] < waiting["calls"] and joined["joined"] > waiting["joined"] == 0


def test_no_side_loads_the_other_framework(measured):
    found = json.loads((measured[0] / "results.json").read_text())
    for part in ("step", "job", "generation"):
        for name, rows in found[part]["replies"].items():
            only = ["jax"] if name.startswith("kdjax") else ["torch"]
            assert all(row["loaded"] == only for row in rows), (part, name)


def test_the_start_and_the_growth_are_measured(measured):
    found = json.loads((measured[0] / "results.json").read_text())
    assert all(0 < seconds < 120 for seconds in found["startup"]["seconds"].values())
    growth = found["growth"]["microseconds"]
    assert growth.keys() == {"length", "rows", "sessions"}
    assert all(value > 0 for values in growth.values() for value in values.values())


def test_measurements_of_other_versions_are_not_mixed(measured, tmp_path):
    found = json.loads((measured[0] / "results.json").read_text())
    path = tmp_path / "results.json"
    path.write_text(json.dumps(found))
    assert read(path) == found
    found["job"]["versions"]["torch"] = "0.1"
    path.write_text(json.dumps(found))
    with pytest.raises(InputError, match="'job' was measured with other versions: torch 0.1"):
        read(path)


def test_our_side_compiles_before_it_is_timed(measured):
    found = json.loads((measured[0] / "results.json").read_text())
    for part in ("step", "job", "generation"):
        for name, rows in found[part]["replies"].items():
            if name.startswith("kdjax"):
                assert [row["compile_seconds"] for row in rows] == [0, 0] and found[part]["first_turn"][name] > 0


def test_a_turn_in_which_our_side_compiles_is_refused(tmp_path):
    turns = {"kdjax": lambda number: {"seconds": 1.0, "compile_seconds": 0.1 * number}}
    with RunLog(tmp_path) as log, pytest.raises(InputError, match="kdjax compiled in round 1"):
        Bench.alternate(SimpleNamespace(rounds=2, log=log), "the job", turns)


def test_losses_that_differ_are_refused():
    agree("a step", {"kdjax": [2.0, 1.0], "torch": [2.0005, 0.9995]}, "float32")
    agree("a step", {"kdjax": [2.0, 1.0], "torch": [2.02, 0.98]}, "bfloat16")
    for losses in ([2.002, 1.0], [2.0, 1.002], [float("nan"), 1.0]):
        with pytest.raises(InputError, match="do not compute the same"):
            agree("a step", {"kdjax": [2.0, 1.0], "torch": losses}, "float32")


class Likeliest:
    """Our side, which says how far below its likeliest token each is that it is asked about."""

    def __init__(self, *gaps):
        self.gaps, self.asked = list(gaps), []

    def ask(self, gap):
        self.asked.append(gap)
        return {"gaps": self.gaps}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_answers_may_differ_where_both_tokens_are_the_likeliest_but_for_rounding(dtype):
    ours, theirs = [[1, 2], [3, 4, 5]], [[1, 2], [3, 6, 9]]
    tie = Likeliest(0.0, TIE[dtype] / 2)
    assert same_answers(tie, ours, theirs, dtype) == {"equal": 1, "ties": 1} and tie.asked == [[1, [3], [4, 6]]]
    for gaps in ((0.0, 2 * TIE[dtype]), (2 * TIE[dtype], 3 * TIE[dtype]), (0.0, float("nan"))):
        with pytest.raises(InputError, match="test prompt 1"):
            same_answers(Likeliest(*gaps), ours, theirs, dtype)
    with pytest.raises(InputError, match="test prompt 1"):
        same_answers(Likeliest(0.0), [[1, 2], [3]], theirs, dtype)  # the other goes on


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("student.dtype", "bfloat16"),
        ("student.quantization", "int8"),
        ("lora.lora_dropout", 0.1),
        ("lora.use_dora", True),
        ("train.weight_decay", 0.1),
        ("train.batch_size", 12),
        ("benchmark.parts", ("generation",)),
        ("data.domains", ("demo", "other")),
    ],
)
def test_what_only_one_side_would_follow_is_refused(field, value):
    config = get_config("smoke")
    config.update_from_flattened_dict({"student.dtype": "float32"} | {field: value})
    with pytest.raises(InputError, match=field):
        check_settings(config, "cpu")


def test_a_side_that_dies_is_told_with_its_last_words(tmp_path):
    settings = {"task": "step"}  # no source is named
    with Side("broken", "jax_side", settings, tmp_path) as side, pytest.raises(InputError, match="'broken' died"):
        side.ask(tokens=[[1, 2]])


def test_a_run_that_ends_before_its_first_step_is_told_with_its_last_words(tmp_path):
    with pytest.raises(InputError, match="ended before its first step:\nno such luck"):
        first_step([sys.executable, "-c", "print('no such luck')"], os.environ, tmp_path / "log.jsonl")


def test_the_pytorch_side_does_not_load_jax():
    code = "import sys, kdjax.benchmark.channel, kdjax.benchmark; assert not {'jax', 'flax'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
