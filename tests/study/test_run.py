"""The main job through launch.py: its artifacts, its errors, and going on after a kill."""

import contextlib
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from study_helpers import SMOKE

from kdjax.evaluation import score
from kdjax.lock import LOCK
from kdjax.sources.tiny import write_tiny_model
from kdjax.training import Counts

TINY_TEACHER = ["--config.teacher.kind=hf", "--config.teacher.source=tiny-random"]
ROOT = Path(__file__).resolve().parents[2]


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_artifacts_are_there_and_agree(finished):
    workdir, printed = finished
    metrics = json.loads((workdir / "metrics.json").read_text())
    predictions = rows(workdir / "predictions.jsonl")
    for group, values in score([r["predicted"] for r in predictions], [r["truth"] for r in predictions]).items():
        assert metrics["test"][group] == pytest.approx(values)
    before = rows(workdir / "predictions_before.jsonl")
    for group, values in score([r["predicted"] for r in before], [r["truth"] for r in before]).items():
        assert metrics["test"]["before"][group] == pytest.approx(values)
    assert metrics["test"]["n"] == len(predictions) == 8
    assert metrics["domains"]["demo"]["strict"] == metrics["test"]["strict"]
    assert metrics["train"]["steps"] == 4 and metrics["train"]["examples"] == 32
    assert 0 < metrics["train"]["target_tokens"] < metrics["train"]["real_tokens"]
    assert "⟦[[" in printed and "whole session" in printed and "synthetic" in printed
    assert (workdir / "report.html").stat().st_size > 10_000
    assert {"distil", "train", "evaluate"} <= metrics["time"].keys()


def test_what_is_trained_on_is_written_and_comes_from_training_sessions(finished):
    workdir, _ = finished
    from kdjax.data import load_domain

    train = {session.id: session for session in load_domain("demo", "", "demo").splits["train"]}
    examples = rows(workdir / "examples" / "train.jsonl")
    assert {row["session_id"] for row in examples} == train.keys()
    for row in examples:
        assert all(title in row["prompt"] for title in train[row["session_id"]].titles)
        assert row["completion"].endswith("]]<|im_end|>")
    for card in rows(workdir / "knowledge" / "demo" / "rules.jsonl"):
        assert card["text"] in examples[0]["prompt"] and set(card["sessions"]) <= train.keys()


def test_the_answers_are_valid_under_the_items_constraint(finished):
    workdir, _ = finished
    assert all(row["valid"] for row in rows(workdir / "predictions.jsonl"))


def test_nothing_is_sent_and_nothing_unpickled(finished, watched):
    """Of the processes of a run; `lscpu` is scikit-learn's, which counts the cores. Torch is the teacher's alone."""
    events = watched.read_text().splitlines()
    assert "began" in events
    assert {event for event in events if event != "began"} <= {
        "subprocess.Popen lscpu",
        f"subprocess.Popen {sys.executable}",
        "import torch in hf_worker.py",
    }


def test_the_watch_hears(tmp_path):
    """Names looked up and pickles read, in a process like those above."""
    code = "import pathlib, pickle, socket; socket.getaddrinfo('localhost', 80); pickle.loads(pickle.dumps(pathlib.Path()))"
    path = os.pathsep.join([str(Path(__file__).with_name("watch")), str(ROOT)])
    environment = os.environ | {"PYTHONPATH": path, "KDJAX_WATCHED": str(tmp_path / "events.txt")}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    events = (tmp_path / "events.txt").read_text().splitlines()
    assert events[0] == "began" and {"socket.getaddrinfo localhost", "pickle.find_class pathlib"} <= set(events)


def test_running_it_again_does_nothing_and_shows_the_table(finished, launch):
    workdir, _ = finished
    before = {
        path: path.stat().st_mtime_ns
        for path in workdir.rglob("*")
        if path.is_file() and "tensorboard" not in path.parts
    }
    again = launch(*SMOKE, f"--workdir={workdir}")
    assert again.returncode == 0 and "student, after fine-tuning" in again.stdout and "train step" not in again.stdout
    after = {path: path.stat().st_mtime_ns for path in before}
    assert {path for path in before if before[path] != after[path]} <= {workdir / "log.jsonl", workdir / LOCK}


def test_a_killed_run_goes_on_to_the_same_adapter(finished, launch, tmp_path):
    """Killed (SIGKILL) between two checkpoints, in the second of four steps; with dropout and micro-batches."""
    workdir, flags = tmp_path / "killed", ["--config.train.checkpoint_every=1"]
    with launch(*SMOKE, f"--workdir={workdir}", *flags, start=True) as process:
        for line in process.stdout:
            if line.startswith("train step 1/4"):
                os.kill(process.pid, signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL and not (workdir / "metrics.json").exists()
    continued = launch(*SMOKE, f"--workdir={workdir}", *flags)
    assert continued.returncode == 0, continued.stderr[-3000:]
    metrics = json.loads((workdir / "metrics.json").read_text())
    assert metrics["time"]["train"] > metrics["train"]["seconds"] + metrics["train"]["compile_seconds"]
    assert not re.search(r"(?m)^I\d{4} ", continued.stderr)  # no library's info on the console
    whole, parts = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (finished[0], workdir))
    assert whole.keys() == parts.keys() and all(np.array_equal(whole[name], parts[name]) for name in whole)


def test_a_full_disk_ends_in_one_line_and_nothing_is_lost(finished, launch, small_disk):
    """There is room for the cards, but not for the examples; once there is, the same command goes on."""
    workdir = small_disk(150) / "run"
    full = launch(*SMOKE, f"--workdir={workdir}")
    assert full.returncode == 1 and "Traceback" not in full.stderr
    assert re.search(r"(?m)^error: .*No space left on device.*the same command goes on", full.stderr)
    assert (workdir / "knowledge").is_dir()
    small_disk(60_000)
    again = launch(*SMOKE, f"--workdir={workdir}")
    assert again.returncode == 0, again.stderr[-3000:]
    whole, parts = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (finished[0], workdir))
    assert whole.keys() == parts.keys() and all(np.array_equal(whole[name], parts[name]) for name in whole)


def test_on_a_terminal_each_loop_ends_its_line(cache, tmp_path):
    """Four steps with a validation after every second one, on a pseudo-terminal."""
    ours, theirs = pty.openpty()
    flags = [f"--workdir={tmp_path / 'run'}", "--config.train.batch_size=80"]
    process = subprocess.Popen(
        [sys.executable, "launch.py", "--config=configs/sft_text.py:smoke", *flags],
        cwd=ROOT,
        env=os.environ | {"KDJAX_CACHE": str(cache), "TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    printed = b""
    with contextlib.suppress(OSError):  # how Linux says that the other side is closed
        while part := os.read(ours, 1 << 16):
            printed += part
    assert process.wait() == 0, printed.decode()[-3000:]
    text = printed.decode()
    assert "train step 2/4" in text and "train step 4/4" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") > 4  # the cursor is hidden by each loop and comes back
    assert text.rindex("train step") < text.rindex("epoch 2: validation") < text.rindex("The fine-tuned student")


def test_another_config_may_not_use_the_folder(finished, launch):
    workdir, _ = finished
    process = launch(*SMOKE, f"--workdir={workdir}", "--config.seed=1")
    assert process.returncode and "config.seed: 0 → 1" in process.stderr


def bad_model(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    return [f"--config.student.source={tmp_path}"]


def torn_model(tmp_path):
    folder = tmp_path / "teacher"
    write_tiny_model(folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    return folder


def bad_data(tmp_path):
    (tmp_path / "shop").mkdir()
    return ["--config.data.source=bundlerec", f"--config.data.root={tmp_path}", "--config.data.domains=('shop',)"]


@pytest.mark.parametrize(
    "flags, message",
    [
        (
            lambda _: ["--config.train.lerning_rate=1"],
            """error: --config.train.lerning_rate=1: the config has no field 'lerning_rate'. Did you mean "learning_rate\"""",
        ),
        (lambda _: ["--config.train.epochs=many"], "many"),
        (bad_model, "no *.safetensors"),
        (bad_data, "session_item.csv"),
        (lambda _: ["--config.train.max_length=100"], "train.max_length=100"),
        (lambda _: ["--config.job=bake"], "run, generate"),
        (lambda _: ["--config.lora.layers_to_transform=(40,)"], "there is no layer 40"),
        (lambda _: ["--config.lora.rank_pattern=(('c_attn',2),)"], "'c_attn' fits no linear layer"),
        (lambda _: ["--config.student.adapter=/nowhere"], "/nowhere/adapter_config.json"),
        (lambda _: ["--config.eval.max_new_tokens=3"], "the shortest answer takes"),
        (lambda _: ["--config.eval.max_new_tokens=4096"], "exceed the student's 4096 positions"),
        (lambda _: ["--config.train.warmup_ratio=2"], "at most 1"),
        (lambda _: ["surplus"], "surplus"),
        (lambda tmp: ["--config.teacher.kind=hf", f"--config.teacher.source={tmp / 'none'}"], "none"),
        (lambda _: [*TINY_TEACHER, "--config.teacher.dtype=int4"], "teacher dtype 'int4'"),
        (lambda tmp: ["--config.teacher.kind=replay", f"--config.teacher.cache_dir={tmp}"], "no recorded teacher"),
        (lambda _: ["--config.train.max_length=800"], "examples exceed train.max_length=800"),
        (lambda _: ["--config.data.root=/data"], "set data.source to"),
        (lambda tmp: ["--config.teacher.kind=hf", f"--config.teacher.source={torn_model(tmp)}"], "safetensors"),
        (
            lambda _: [
                *TINY_TEACHER,
                "--config.train.max_length=850",
            ],
            "may exceed train.max_length=850 tokens; the longest is session demo/d154 with 450 and up to 402",
        ),
    ],
    ids=[
        "field",
        "type",
        "model",
        "data",
        "length",
        "job",
        "layer",
        "pattern",
        "adapter",
        "budget",
        "positions",
        "warmup",
        "argument",
        "teacher",
        "teacher-dtype",
        "replay",
        "knowledge",
        "demo-root",
        "teacher-weights",
        "knowledge-to-come",
    ],
)
def test_bad_input_is_an_error_before_any_work(launch, tmp_path, flags, message):
    workdir = tmp_path / "run"
    process = launch("sft_text.py:smoke", f"--workdir={workdir}", *flags(tmp_path))
    assert process.returncode != 0 and message in process.stderr
    assert process.stderr.strip().splitlines()[-1].startswith("error: ") and "Traceback" not in process.stderr
    assert not workdir.exists()


def test_a_loss_that_is_not_finite_stops_the_run(launch, tmp_path):
    """The checkpoint before it stays, and a run that was put right is another one."""
    workdir, flags = tmp_path / "run", ["--config.train.checkpoint_every=1"]
    process = launch("sft_text.py:smoke", f"--workdir={workdir}", *flags, "--config.train.learning_rate=1e9")
    last = process.stderr.strip().splitlines()[-1]
    assert process.returncode and re.match(r"error: step 2: loss .*; sessions: demo/d\d+(, demo/d\d+){7}", last), last
    assert "Traceback" not in process.stderr and not (workdir / "metrics.json").exists()
    assert [path.name for path in (workdir / "checkpoints").iterdir()] == ["1"]
    process = launch("sft_text.py:smoke", f"--workdir={workdir}", *flags)
    assert process.returncode and "train.learning_rate: 1000000000.0 → 0.0005" in process.stderr
    assert [path.name for path in (workdir / "checkpoints").iterdir()] == ["1"]


@pytest.mark.parametrize(
    "config, message",
    [
        ("sft_rule.py", "No such file"),
        ("sft_text.py:smok", "no version 'smok'"),
        ("../README.md", "README.md, line"),
        ("", "Is a directory"),
    ],
)
def test_a_config_that_is_not_there(launch, tmp_path, config, message):
    process = launch(config, f"--workdir={tmp_path / 'run'}")
    assert process.returncode and message in process.stderr and "Traceback" not in process.stderr
    assert not (tmp_path / "run").exists()


def test_a_format_that_yields_nothing_is_told(launch, tmp_path):
    flags = ["--config.knowledge.min_count=999", "--config.train.max_steps=1"]
    process = launch("sft_patterns.py:smoke", f"--workdir={tmp_path / 'run'}", *flags)
    assert process.returncode == 0, process.stderr[-3000:]
    told = "demo: no patterns reach the student"
    assert told in process.stdout and told in (tmp_path / "run" / "report.html").read_text()


def test_a_run_killed_while_it_wrote_its_first_file_goes_on(launch, tmp_path):
    (tmp_path / ".config.json.4711.tmp").write_text("{")
    process = launch("sft_text.py:smoke", f"--workdir={tmp_path}", "--config.train.max_steps=1")
    assert process.returncode == 0, process.stderr[-3000:]


def test_the_folder_is_compared_before_a_model_is_looked_for(finished, launch, tmp_path):
    process = launch(*SMOKE, f"--workdir={finished[0]}", "--config.student.source=nobody/nothing")
    assert process.returncode and "'tiny-random' → 'nobody/nothing'" in process.stderr
    (tmp_path / "file").touch()
    process = launch("sft_text.py:smoke", f"--workdir={tmp_path / 'file'}")
    assert process.returncode and "is a file" in process.stderr and "Traceback" not in process.stderr


def test_a_folder_that_is_no_run_is_left_alone(launch, tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    process = launch("sft_text.py:smoke", f"--workdir={tmp_path}")
    assert process.returncode and "not a run" in process.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("config", ["sft_patterns.py:smoke", "sft_thoughts.py:smoke"])
def test_the_other_formats_run(launch, tmp_path, config):
    process = launch(config, f"--workdir={tmp_path / 'run'}", "--config.train.max_steps=1")
    assert process.returncode == 0, process.stderr[-3000:]
    example = rows(tmp_path / "run" / "examples" / "train.jsonl")[0]
    if "thoughts" in config:
        assert "Bundles: [[" in example["completion"]
        assert all("Bundles:" in row["text"] and row["valid"] for row in rows(tmp_path / "run" / "predictions.jsonl"))
    else:
        assert "Often bundled together:" in example["prompt"]


def test_two_domains_are_trained_together_and_scored_apart(launch, tmp_path):
    root = tmp_path / "data"
    for name, word in (("books", "novel"), ("tools", "hammer")):
        write_domain(root / name, word)
    flags = [
        "--config.data.source=jsonl",
        f"--config.data.root={root}",
        "--config.data.domains=('books','tools')",
        "--config.train.max_steps=1",
    ]
    process = launch("sft_text.py:smoke", f"--workdir={tmp_path / 'run'}", *flags)
    assert process.returncode == 0, process.stderr[-3000:]
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["domains"].keys() == {"books", "tools"}
    assert metrics["test"]["n"] == sum(result["n"] for result in metrics["domains"].values())


def write_domain(folder, word):
    folder.mkdir(parents=True)
    items = [
        {
            "id": f"i{i}",
            "title": f"{word} number {i % 7} in {'red' if i % 2 else 'blue'}",
            "categories": [["Shop", word]],
        }
        for i in range(40)
    ]
    sessions = [
        {
            "id": f"s{i}",
            "items": [f"i{i}", f"i{i + 1}", f"i{i + 2}"],
            "bundles": [[f"i{i}", f"i{i + 2}"]],
            "intents": ["same colour"],
        }
        for i in range(30)
    ]
    (folder / "items.jsonl").write_text("\n".join(map(json.dumps, items)))
    (folder / "sessions.jsonl").write_text("\n".join(map(json.dumps, sessions)))


def test_without_training_the_student_is_scored_as_it_is(launch, tmp_path):
    process = launch("sft_text.py:smoke", f"--workdir={tmp_path / 'run'}", "--config.train.max_steps=0")
    assert process.returncode == 0, process.stderr[-3000:]
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["train"] == Counts().counts() and metrics["test"]["synthetic"]
    assert "before" not in metrics["test"] and not (tmp_path / "run" / "checkpoints").exists()
    shutil.rmtree(tmp_path / "run")


def test_the_frozen_student_stands_beside_one_that_writes(finished):
    workdir, printed = finished
    metrics = json.loads((workdir / "metrics.json").read_text())
    found = rows(workdir / "predictions_frozen.jsonl")
    expected = score([r["predicted"] for r in found], [r["truth"] for r in found])
    assert metrics["test"]["baselines"]["frozen student"]["strict"] == pytest.approx(expected["strict"])
    assert "after_minus_frozen student" in metrics["test"]["intervals"] and "frozen student" in printed
