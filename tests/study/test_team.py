"""Two processes of two devices each, over gloo, that share no folder: the first has the data and writes, the second has the model alone."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from http_stand_in import Server, answer_to
from safetensors.numpy import load_file
from study_helpers import SMOKE

from kdjax.data import load_domain

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def team(tmp_path):
    """team(config, *flags, first=…) → the two processes, running; what belongs to the second lies in `tmp_path`/second."""

    def start(config: str, *flags: str, first: Path) -> list[subprocess.Popen]:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        started = []
        for number, folder in enumerate((first, tmp_path / "second")):
            folder.mkdir(exist_ok=True)
            env = os.environ | {
                "KDJAX_CACHE": str(folder / "cache"),
                "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
                "PYTHONPATH": str(ROOT),
                "PYTHONUNBUFFERED": "1",
            }
            command = [sys.executable, ROOT / "launch.py", f"--config={ROOT / 'configs' / config}", *flags]
            command += [f"--workdir={folder / 'run'}", f"--coordinator=localhost:{port}"]
            command += ["--processes=2", f"--process={number}"]
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
            started.append(subprocess.Popen(command, cwd=folder, env=env, **pipes))
        return started

    return start


def ends(processes: list[subprocess.Popen]) -> list[tuple[int, str]]:
    """Status and output of each, once all have ended; read side by side, lest one waits for its pipe."""
    try:
        said = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, text) for process, text in zip(processes, said, strict=True)]


def adapter(run: Path) -> dict[str, np.ndarray]:
    return load_file(run / "adapter" / "adapter_model.safetensors")


def predictions(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]


def wait_for(checkpoint: str, first: Path, processes: list[subprocess.Popen]) -> None:
    """Until training is behind this step."""
    while not (first / "run" / "checkpoints" / checkpoint).exists():
        assert processes[0].poll() is None, ends(processes)
        time.sleep(0.01)


def test_two_processes_do_what_one_does_and_go_on_after_deaths(team, finished, tmp_path):
    """The first is killed behind a checkpoint, then the second behind the next: the other one stops, too. Both together
    then go on from there."""
    alone, first, flags = finished[0], tmp_path / "first", ["--config.train.checkpoint_every=1"]
    for dies, checkpoint in enumerate(("1", "2")):
        processes = team(*SMOKE, *flags, first=first)
        wait_for(checkpoint, first, processes)
        processes[dies].kill()
        ended = ends(processes)
        status, said = ended[1 - dies]
        assert ended[dies][0] == -signal.SIGKILL and status not in (0, -signal.SIGKILL), said
        assert "another task died" in said and not (first / "run" / "metrics.json").exists()
    ended = ends(team(*SMOKE, *flags, first=first))
    assert [status for status, _ in ended] == [0, 0], ended
    assert "train step 2/4" not in ended[0][1] and "train step" not in ended[1][1]
    here, there = adapter(first / "run"), adapter(alone)
    for name, array in there.items():
        np.testing.assert_allclose(here[name], array, rtol=1e-3, atol=1e-5)
    assert [row["predicted"] for row in predictions(first / "run")] == [row["predicted"] for row in predictions(alone)]
    counted = [json.loads((run / "metrics.json").read_text())["train"] for run in (first / "run", alone)]
    assert [counts["target_tokens"] for counts in counted] == [counted[0]["target_tokens"]] * 2
    # The second has written nothing but what its model takes, and nothing of the teacher's.
    assert not (tmp_path / "second" / "run").exists() and not (tmp_path / "second" / "cache" / "teacher").exists()


def test_a_machine_that_goes_stops_both_behind_a_saved_step(team, tmp_path):
    """SIGTERM to the second alone, as from a scheduler that wants its machine back."""
    first, flags = tmp_path / "first", ["--config.train.checkpoint_every=1", "--config.train.max_steps=400"]
    processes = team("sft_text.py:smoke", *flags, "--config.train.epochs=100", first=first)
    wait_for("1", first, processes)
    processes[1].send_signal(signal.SIGTERM)
    ended = ends(processes)
    assert [status for status, _ in ended] == [143, 143], ended
    assert "SIGTERM: training is saved behind step" in ended[0][1] and not (first / "run" / "metrics.json").exists()


def test_the_first_alone_has_the_data_and_asks_the_teacher(team, launch, tmp_path):
    """Data in a folder that only the first finds; each process cuts the base over its devices. One device alone gives the same."""
    first = tmp_path / "first"
    write_as_jsonl(load_domain("demo", "", "demo"), first / "data" / "shop")
    with Server() as server:
        server.answer = lambda prompt: answer_to("Put products of one kind together.")
        flags = ["--config.data.source=jsonl", "--config.data.root=data", "--config.data.domains=('shop',)"]
        flags += ["--config.teacher.kind=http", f"--config.teacher.url={server.url}", "--config.teacher.source=tiny"]
        flags += ["--config.knowledge.reflections=2", "--config.train.max_steps=2", "--config.train.max_length=4096"]
        mesh = ["--config.parallel=mesh", "--config.mesh.tensor=2"]
        ended = ends(team("sft_rules.py:smoke", *flags, *mesh, first=first))
    assert [status for status, _ in ended] == [0, 0], ended
    asked = len(server.seen)
    assert asked and len([*(first / "cache" / "teacher").glob("*/manifest.json")]) == 1
    assert len({json.dumps(payload["messages"]) for _, _, payload in server.seen}) == asked  # nothing twice
    assert not (tmp_path / "second" / "cache" / "teacher").exists() and not (tmp_path / "second" / "run").exists()
    # Two orders of eight sessions: the first has answered half of them, and has the answers of all.
    assert "test 8/8" in ended[0][1]
    flags += [f"--config.data.root={first / 'data'}", f"--config.teacher.cache_dir={first / 'cache' / 'teacher'}"]
    process = launch("sft_rules.py:smoke", f"--workdir={tmp_path / 'alone'}", *flags)
    assert process.returncode == 0, process.stderr[-3000:]
    here, there = adapter(first / "run"), adapter(tmp_path / "alone")
    close = [np.isclose(here[name], array, rtol=1e-3, atol=1e-5).ravel() for name, array in there.items()]
    # A gradient that is all rounding has any sign, and AdamW makes a whole step of it: how many depends on the processor.
    assert np.concatenate(close).mean() > 0.9
    one, two = (
        [row["loss"] for row in map(json.loads, (run / "log.jsonl").read_text().splitlines()) if row["event"] == "step"]
        for run in (tmp_path / "alone", first / "run")
    )
    np.testing.assert_allclose(two, one, rtol=1e-3)
    np.testing.assert_allclose(two[0], one[0], rtol=1e-4)  # before AdamW


def write_as_jsonl(domain, folder: Path) -> None:
    """A domain as one's own data."""
    folder.mkdir(parents=True)
    items, sessions = {}, []
    for split, found in domain.splits.items():
        for session in found:
            told = zip(session.items, session.titles, session.categories, strict=True)
            items |= {id: {"id": id, "title": title, "categories": paths} for id, title, paths in told}
            bundles = [[session.items[i] for i in bundle] for bundle in session.bundles]
            sessions.append({"id": session.id, "items": session.items, "bundles": bundles, "split": split})
    for name, rows in (("items", items.values()), ("sessions", sessions)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))


def test_a_study_is_the_first_ones(team, tmp_path):
    """The other one trains and answers in each cell, and has nothing of it."""
    first, cells = tmp_path / "first", (("all", (), ""), ("none", (("knowledge.formats", ()),), "all"))
    flags = [f"--config.study.cells={cells}", "--config.train.max_steps=1", "--config.eval.max_sessions=2"]
    ended = ends(team("study_quantity.py:smoke", *flags, first=first))
    assert [status for status, _ in ended] == [0, 0], ended
    assert len([*(first / "run" / "cells").glob("*/metrics.json")]) == 2
    assert all(name in (first / "run" / "study.md").read_text() for name, _, _ in cells)
    assert {path.name for path in (tmp_path / "second").iterdir()} == {"cache"}
    assert {path.name for path in (tmp_path / "second" / "cache").iterdir()} == {"xla", "models"}


def test_where_the_first_cannot_go_on_the_second_stops_too(team, tmp_path):
    flags = ["--config.data.source=bundlerec", f"--config.data.root={tmp_path / 'nowhere'}"]
    ended = ends(team("sft_text.py:smoke", *flags, first=tmp_path / "first"))
    assert [status for status, _ in ended] == [1, 1]
    assert ended[0][1].startswith("error: ") and "nowhere" in ended[0][1]
    assert "error: the first process stopped: " in ended[1][1] and "nowhere" in ended[1][1]
    assert all("Traceback" not in said for _, said in ended)
