"""One run, one workdir: two processes of the same command, and what holds the lock."""

import json
import os
import signal
import time

import pytest
from study_helpers import SMOKE

from configs import sft_text, study_quantity
from configs.base import cell
from kdjax.errors import InputError
from kdjax.lock import LOCK, locked
from kdjax.study import run, study
from kdjax.study.cell import Cell
from kdjax.study.workdir import check_content, check_workdir, claim


def test_a_second_process_of_the_same_command_is_refused_until_the_first_is_gone(launch, tmp_path):
    """The first is stopped in the middle, so that it still works when the second comes; then it is killed (SIGKILL)."""
    workdir, flags = tmp_path / "run", ["--config.train.max_steps=1", "--config.eval.max_sessions=2"]
    with launch(*SMOKE, f"--workdir={workdir}", *flags, start=True) as first:
        while not (workdir / "config.json").is_file():
            assert first.poll() is None, first.stdout.read()
            time.sleep(0.05)
        first.send_signal(signal.SIGSTOP)
        before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
        second = launch(*SMOKE, f"--workdir={workdir}", *flags)
        assert second.returncode == 1 and "Traceback" not in second.stderr
        assert f"error: {workdir} is in use: process {first.pid} on " in second.stderr.splitlines()[-1]
        assert before == {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
        first.kill()
    with launch(*SMOKE, f"--workdir={workdir}", *flags, start=True) as third:
        assert any("training examples" in line for line in third.stdout)  # it goes on, and to the end as in test_run.py
        assert json.loads((workdir / LOCK).read_text())["process"] == third.pid
        third.kill()


def test_a_claim_holds_the_lock_until_its_end(tmp_path):
    config = sft_text.get_config("smoke")
    check_workdir(tmp_path / "run", config, {})
    with claim(tmp_path / "run", config, {}):
        assert (tmp_path / "run" / "config.json").is_file()
        for attempt in (claim, check_workdir):
            with pytest.raises(InputError, match=f"is in use: process {os.getpid()} on"):
                attempt(tmp_path / "run", config, {}).__enter__()
        check_content(tmp_path / "run", config, {})  # it is this run's
    check_workdir(tmp_path / "run", config, {})


def test_a_run_that_began_since_the_check_is_seen(tmp_path):
    """Both have found the folder empty; the other one was first, and has ended."""
    config, other = sft_text.get_config("smoke"), sft_text.get_config("smoke")
    other.seed = 7
    check_workdir(tmp_path, config, {})
    with claim(tmp_path, other, {}):
        pass
    with pytest.raises(InputError, match="belongs to another run; it differs in: config.seed: 7 → 0"):
        claim(tmp_path, config, {}).__enter__()


def test_a_run_whose_folder_is_moved_ends_at_its_next_step(tmp_path, monkeypatch):
    def moved(cell, prepared):
        (tmp_path / "run").rename(tmp_path / "elsewhere")
        cell.log.event("step", step=1)

    monkeypatch.setattr(Cell, "run", moved)
    with pytest.raises(InputError, match="run or its .lock was deleted or moved while this run worked in it"):
        run(sft_text.get_config("smoke"), tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]


def test_the_lock_alone_is_no_content(tmp_path):
    """A run that was killed between its lock and its config.json."""
    with locked(tmp_path):
        pass
    check_workdir(tmp_path, sft_text.get_config("smoke"), {})


def test_a_finished_run_that_is_shown_is_locked_too(finished):
    """Its table goes to its log."""
    workdir, _ = finished
    config = sft_text.get_config("smoke")
    config.lora.lora_dropout, config.train.micro_batch_tokens = 0.1, 600
    with locked(workdir), pytest.raises(InputError, match="is in use"):
        run(config, workdir)


def test_a_study_is_locked_and_so_are_its_runs(tmp_path, capsys, monkeypatch):
    config = study_quantity.get_config("smoke")
    config.study.cells = (cell("a"),)
    with locked(tmp_path / "study"):
        with pytest.raises(InputError, match="study is in use"):
            study(config, str(tmp_path / "study"))
        config.study.dry_run = True
        study(config, str(tmp_path / "study"))  # it only reads
    assert "a" in capsys.readouterr().out
    config.study.dry_run = False
    held = []

    def one_run(of, folder, shared):
        with pytest.raises(InputError, match="study is in use"):
            locked(tmp_path / "study").__enter__()
        with locked(folder):
            held.append(folder)
            raise InputError("enough")

    monkeypatch.setitem(study.__globals__["RUN"], "run", one_run)
    with pytest.raises(InputError, match="enough"):
        study(config, str(tmp_path / "study"))
    assert [folder.parent for folder in held] == [tmp_path / "study" / "cells"]
    with locked(tmp_path / "study"):
        pass
