"""AICL through launch.py, with a tiny random teacher: it says nothing useful, so its sessions stay unanswered."""

import json

from kdjax.data import load_domain


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_dialogues_are_held_scored_and_replayed(launch, watched, tmp_path):
    few = ["--config.quantity.ratio=0.1", "--config.quantity.strategy=length"]
    process = launch("aicl.py:smoke", f"--workdir={tmp_path / 'run'}", *few)
    assert process.returncode == 0, process.stderr[-3000:]
    events = watched.read_text()
    assert "import torch in hf_worker.py" in events and "torch in launch.py" not in events and "socket" not in events
    splits = load_domain("demo", "", "demo").splits
    chosen = json.loads((tmp_path / "run" / "selection.json").read_text())
    dialogues, predictions = (rows_of(tmp_path / "run" / f"{name}.jsonl") for name in ("dialogues", "predictions"))
    assert len(dialogues) == len(predictions) == 3
    assert len(chosen["knowledge"]["demo"]) == 16  # a neighbour is one of them
    assert {row["neighbour"] for row in dialogues} <= {*chosen["knowledge"]["demo"]}
    assert {row["session_id"] for row in predictions} <= {session.id for session in splits["test"]}
    assert all(row["turns"][0][1].startswith("A bundle is") for row in dialogues)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["test"]["n"] == 3 and "pair classifier" in metrics["test"]["baselines"]
    assert "AICL asks the teacher" in (tmp_path / "run" / "report.html").read_text()

    again = launch("aicl.py:smoke", f"--workdir={tmp_path / 'again'}", *few, "--config.teacher.kind=replay")
    assert again.returncode == 0, again.stderr[-3000:]
    assert rows_of(tmp_path / "again" / "dialogues.jsonl") == dialogues


def test_a_teacher_that_is_no_model_is_refused(launch, tmp_path):
    process = launch("aicl.py:smoke", f"--workdir={tmp_path / 'run'}", "--config.teacher.kind=annotations")
    assert process.returncode and "AICL talks with one" in process.stderr and not (tmp_path / "run").exists()
