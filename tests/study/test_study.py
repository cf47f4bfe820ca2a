"""A study through launch.py: its plan, its cells, going on after a kill."""

import csv
import importlib
import json
import os
import signal

import pytest

from configs import study_format, study_quantity
from configs.base import cell
from configs.study_use import CELLS
from kdjax.data import load_domain
from kdjax.errors import InputError
from kdjax.reporting import write_jsonl
from kdjax.study import study


def finished(workdir):
    return {path.parent.name: path.stat().st_mtime_ns for path in workdir.glob("cells/*/metrics.json")}


def test_a_dry_run_plans_and_writes_nothing(launch, tmp_path):
    process = launch("study_format.py:smoke", f"--workdir={tmp_path / 'run'}", "--config.study.dry_run=True")
    assert process.returncode == 0, process.stderr[-3000:]
    assert "none, fine-tuned" in process.stdout and "MiB" in process.stdout and "Gflop/s" in process.stdout
    assert not (tmp_path / "run").exists()


@pytest.fixture
def two_domains(tmp_path):
    """The flags of a study over two domains: the demo, cut in two."""
    demo = load_domain("demo", "", "demo")
    for part, name in enumerate(("north", "south")):
        products, sessions = {}, []
        for split, all_sessions in demo.splits.items():
            for one in all_sessions[part:40:2]:
                items = zip(one.items, one.titles, one.categories, strict=True)
                products |= {item: {"id": item, "title": title, "categories": paths} for item, title, paths in items}
                bundles = [[one.items[index] for index in bundle] for bundle in one.bundles]
                sessions.append({"id": one.id, "items": one.items, "bundles": bundles, "split": split})
        write_jsonl(tmp_path / "data" / name / "items.jsonl", products.values())
        write_jsonl(tmp_path / "data" / name / "sessions.jsonl", sessions)
    root = tmp_path / "data"
    return ["--config.data.source=jsonl", f"--config.data.root={root}", "--config.data.domains=('north','south')"]


def rows_of(workdir):
    return list(csv.DictReader((workdir / "study.csv").read_text().splitlines()))


def examples(workdir, name):
    file = next(workdir.glob(f"cells/{name.replace(' ', '-')}-seed*/examples/train.jsonl"))
    return map(json.loads, file.read_text().splitlines())


def test_a_study_of_formats_runs(launch, tmp_path):
    workdir = tmp_path / "run"
    process = launch("study_format.py:smoke", f"--workdir={workdir}", "--config.eval.max_sessions=2")
    assert process.returncode == 0, process.stderr[-3000:]
    cells = study_format.get_config("smoke").study.cells
    assert [row["name"] for row in rows_of(workdir) if row["kind"] == "cell"] == [name for name, _, _ in cells]
    assert all((workdir / name).is_file() for name in ("study.md", "study.tex", "report.html"))


def test_a_study_of_quantity_runs_over_two_domains(launch, tmp_path, two_domains):
    """Each domain has its rows, all of them have some together, and each domain alone is a cell, of that domain's table."""
    workdir = tmp_path / "run"
    process = launch("study_quantity.py:smoke", f"--workdir={workdir}", "--config.eval.max_sessions=2", *two_domains)
    assert process.returncode == 0, process.stderr[-3000:]
    both = [name for name, _, _ in study_quantity.get_config("smoke").study.cells]
    found = {label: [] for label in ("north", "south", "all domains")}
    for row in rows_of(workdir):
        if row["kind"] == "cell":
            found[row["domain"]].append(row["name"])
    all_of_it = "knowledge of all domains"
    assert found["all domains"] == [*both, all_of_it]
    assert all((workdir / name).is_file() for name in ("study.md", "study.tex", "report.html"))
    assert {name: found[name] for name in ("north", "south")} == {
        name: [*both, f"{name} alone", all_of_it] for name in ("north", "south")
    }
    told = {
        name: {one["prompt"].split("<|im_start|>user")[0] for one in examples(workdir, name)}
        for name in (both[0], all_of_it)
    }
    assert len(told[both[0]]) == 2 and len(told[all_of_it]) == 1  # what stands before the products


def test_a_run_that_fails_does_not_keep_the_others_from_theirs(tmp_path):
    config = study_format.get_config("smoke")
    config.knowledge.formats, config.eval.max_sessions, config.study.seeds = (), 2, (0,)
    config.study.cells = (
        cell("too fast", "untrained", train__learning_rate=2e9),
        cell("untrained", train__max_steps=0),
    )
    with pytest.raises(
        InputError, match=r"1 of 2 runs failed; .*study.md is of the others.*too fast, seed 0: step \d: loss (nan|inf)"
    ):
        study(config, tmp_path)
    assert [row["name"] for row in rows_of(tmp_path) if row["kind"] == "cell"] == ["untrained"]
    for name in ("study.md", "study.tex", "report.html"):
        assert "left out here: too fast, seed 0." in (tmp_path / name).read_text()


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
    rows = rows_of(workdir)
    names = [name for name, _, _ in CELLS]
    assert [row["name"] for row in rows if row["kind"] == "cell"] == [*names[:3], *names[-2:]]
    assert {"whole session", "pair classifier", "frozen student"} <= {row["name"] for row in rows}
    for name in ("study.md", "study.tex", "report.html"):
        assert "fine-tuned, 1 shown" in (workdir / name).read_text()
    # the frozen student of both that write, of the one that judges, and of that with a demonstration
    assert len([*workdir.glob("shared/head-*")]) == 3
    # what untrained students answer is asked once: a cell that asks the same finds it
    shared = launch("study_use.py:smoke", *few, "--config.train.checkpoint_every=2")
    assert shared.returncode == 0, shared.stderr[-3000:]
    assert shared.stdout.count("test before training: as in an earlier run") == 2
    assert shared.stdout.count("test: as in an earlier run") == 2
    assert shared.stdout.count("test, frozen: as in an earlier run") == 2
    assert shared.stdout.count("pair head: as in an earlier run") == 4
    assert len(finished(workdir)) == 10 and {name: finished(workdir)[name] for name in after} == after
