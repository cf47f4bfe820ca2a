"""A study through launch.py: its plan, its cells, going on after a kill."""

import csv
import importlib
import os
import signal

import pytest

from configs.study_use import CELLS


def finished(workdir):
    return {path.parent.name: path.stat().st_mtime_ns for path in workdir.glob("cells/*/metrics.json")}


def test_a_dry_run_plans_and_writes_nothing(launch, tmp_path):
    process = launch("study_format.py:smoke", f"--workdir={tmp_path / 'run'}", "--config.study.dry_run=True")
    assert process.returncode == 0, process.stderr[-3000:]
    assert "none, fine-tuned" in process.stdout and "MiB" in process.stdout and "Gflop/s" in process.stdout
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("question", ["format", "quantity"])
def test_the_other_studies_run(launch, tmp_path, question):
    workdir = tmp_path / "run"
    process = launch(f"study_{question}.py:smoke", f"--workdir={workdir}", "--config.eval.max_sessions=2")
    assert process.returncode == 0, process.stderr[-3000:]
    cells = importlib.import_module(f"configs.study_{question}").get_config("smoke").study.cells
    rows = list(csv.DictReader((workdir / "study.csv").read_text().splitlines()))
    assert [row["name"] for row in rows if row["kind"] == "cell"] == [name for name, _, _ in cells]
    assert all((workdir / name).is_file() for name in ("study.md", "study.tex", "report.html"))


@pytest.mark.parametrize("question", ["format", "quantity", "use"])
def test_the_small_studies_are_a_part_of_the_whole(question):
    config = importlib.import_module(f"configs.study_{question}").get_config
    whole, small = config().study, config("small").study
    assert small.seeds == whole.seeds and set(small.cells) <= set(whole.cells)
    assert {against for _, _, against in small.cells} <= {"", *(name for name, _, _ in small.cells)}


def test_a_killed_study_goes_on_with_what_is_not_finished(launch, tmp_path):
    """Killed in the fourth of five runs, in the first of its two steps."""
    workdir = tmp_path / "run"
    fourth, few = False, [f"--workdir={workdir}", "--config.eval.max_sessions=2"]
    flags = [*few, "--config.train.checkpoint_every=1"]
    with launch("study_use.py:smoke", *flags, start=True) as process:
        for line in process.stdout:
            fourth |= line.startswith("run 4 of 5: fine-tuned, seed 0")
            if fourth and line.startswith("train step 1/2"):
                os.kill(process.pid, signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    before = finished(workdir)
    assert len(before) == 3 and not (workdir / "study.csv").exists()
    again = launch("study_use.py:smoke", *flags)
    assert again.returncode == 0, again.stderr[-3000:]
    assert "run 1 of 2: fine-tuned, seed 0" in again.stdout
    after = finished(workdir)
    assert len(after) == 5 and all(after[name] == when for name, when in before.items())
    rows = list(csv.DictReader((workdir / "study.csv").read_text().splitlines()))
    names = [name for name, _, _ in CELLS]
    assert [row["name"] for row in rows if row["kind"] == "cell"] == [*names[:3], *names[-2:]]
    assert {"whole session", "pair classifier", "frozen student"} <= {row["name"] for row in rows}
    for name in ("study.md", "study.tex", "report.html"):
        assert "fine-tuned, 1 shown" in (workdir / name).read_text()
    # what untrained students answer is asked once: a cell that asks the same finds it
    shared = launch("study_use.py:smoke", *few, "--config.train.checkpoint_every=2")
    assert shared.returncode == 0, shared.stderr[-3000:]
    assert shared.stdout.count("test before training: as in an earlier run") == 2
    assert shared.stdout.count("test: as in an earlier run") == 2
    assert len(finished(workdir)) == 10 and {name: finished(workdir)[name] for name in after} == after
