"""Whole runs through launch.py, in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from http_stand_in import Server, answer_to
from study_helpers import SMOKE

ROOT = Path(__file__).resolve().parents[2]
WATCH = Path(__file__).resolve().parent / "watch"


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    """Models, teacher answers and compiled programs of all runs of this test session."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def watched(tmp_path_factory) -> Path:
    """What all runs of this test session did behind one's back, a line each; see watch/sitecustomize.py."""
    return tmp_path_factory.mktemp("watched") / "events.txt"


@pytest.fixture(scope="session")
def launch(cache, watched):
    """launch(config, *flags) → the finished process; `start=True` gives it running, `input` is its standard input."""

    def launch(config: str, *flags: str, start: bool = False, input: str | None = None):
        command = [sys.executable, "launch.py", f"--config=configs/{config}", *flags]
        path = os.pathsep.join(filter(None, [str(WATCH), os.environ.get("PYTHONPATH")]))
        env = os.environ | {"PYTHONPATH": path, "KDJAX_WATCHED": str(watched)}
        env |= {"KDJAX_CACHE": str(cache), "PYTHONUNBUFFERED": "1"}
        del env["HF_HUB_OFFLINE"]  # as a user has it
        if start:
            return subprocess.Popen(
                command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        return subprocess.run(
            command, check=False, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, input=input
        )

    return launch


@pytest.fixture(scope="session")
def finished(launch, tmp_path_factory):
    """The workdir of a finished run of `SMOKE`, and what it printed."""
    workdir = tmp_path_factory.mktemp("runs") / "smoke"
    process = launch(*SMOKE, f"--workdir={workdir}")
    assert process.returncode == 0, process.stderr[-3000:]
    return workdir, process.stdout


@pytest.fixture
def server(monkeypatch):
    """A local endpoint without a model, for a teacher over HTTP."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        server.answer = answer_to
        yield server
