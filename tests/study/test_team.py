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
from safetensors.numpy import load_file

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
    return [json.loads(line) for line in (run / "predictions.jsonl").open()]


def test_two_processes_do_what_one_does_and_go_on_after_a_death(team, finished, tmp_path):
    """The second is killed behind the first checkpoint: the first stops, too. Both together then go on from there."""
    alone, first, flags = finished[0], tmp_path / "first", ["--config.train.checkpoint_every=1"]
    processes = team("sft_text.py:smoke", *flags, first=first)
    while not any(path.name.isdecimal() for path in (first / "run" / "checkpoints").glob("*")):
        assert processes[0].poll() is None, ends(processes)
        time.sleep(0.01)
    processes[1].kill()
    (status, said), (killed, _) = ends(processes)
    assert killed == -signal.SIGKILL and status != 0 and not (first / "run" / "metrics.json").exists(), said
    ended = ends(team("sft_text.py:smoke", *flags, first=first))
    assert [status for status, _ in ended] == [0, 0], ended
    assert "train step 1/4" not in ended[0][1] and "train step" not in ended[1][1]
    here, there = adapter(first / "run"), adapter(alone)
    for name, array in there.items():
        np.testing.assert_allclose(here[name], array, rtol=1e-3, atol=1e-5)
    assert [row["predicted"] for row in predictions(first / "run")] == [row["predicted"] for row in predictions(alone)]
    counted = [json.loads((run / "metrics.json").read_text())["train"] for run in (first / "run", alone)]
    assert [counts["target_tokens"] for counts in counted] == [counted[0]["target_tokens"]] * 2
    # The second has written nothing but what its model takes, and nothing of the teacher's.
    assert not (tmp_path / "second" / "run").exists() and not (tmp_path / "second" / "cache" / "teacher").exists()


def test_where_the_first_cannot_go_on_the_second_stops_too(team, tmp_path):
    flags = ["--config.data.source=bundlerec", f"--config.data.root={tmp_path / 'nowhere'}"]
    ended = ends(team("sft_text.py:smoke", *flags, first=tmp_path / "first"))
    assert [status for status, _ in ended] == [1, 1]
    assert ended[0][1].startswith("error: ") and "nowhere" in ended[0][1]
    assert "error: the first process stopped: " in ended[1][1] and "nowhere" in ended[1][1]
    assert all("Traceback" not in said for _, said in ended)
