import io
import math
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kdjax.errors import InputError
from kdjax.reporting import RunLog, read_jsonl


def curve(workdir, tag):
    accumulator = EventAccumulator(str(workdir / "tensorboard"))
    accumulator.Reload()
    return [(point.step, point.value) for point in accumulator.Scalars(tag)]


def test_tensorboard_reads_the_curves_while_the_log_is_open(tmp_path):
    with RunLog(tmp_path) as log:
        log.scalars(1, {"train/loss": 2.5, "train/learning_rate": 0.125})
        log.scalars(2, {"train/loss": float("nan")})
        (first, second), rate = curve(tmp_path, "train/loss"), curve(tmp_path, "train/learning_rate")
    assert first == (1, 2.5) and second[0] == 2 and math.isnan(second[1]) and rate == [(1, 0.125)]


def test_reopening_appends_events_and_curves(tmp_path):
    for step in (1, 2):
        with RunLog(tmp_path) as log:
            log.event("step", step=step, loss=float("inf") if step == 1 else 0.5)
            log.scalars(step, {"loss": step})
    rows = read_jsonl(tmp_path / "log.jsonl")
    assert [(row["event"], row["step"], row["loss"]) for row in rows] == [("step", 1, None), ("step", 2, 0.5)]
    assert list(rows[0])[:2] == ["time", "event"] and datetime.fromisoformat(rows[0]["time"]).tzinfo
    assert curve(tmp_path, "loss") == [(1, 1.0), (2, 2.0)]


def test_an_event_is_on_disk_at_once_and_may_have_a_field_called_name(tmp_path):
    with RunLog(tmp_path) as log:
        log.event("domain", name="demo")
        assert read_jsonl(tmp_path / "log.jsonl")[0]["name"] == "demo"


def test_the_logs_own_fields_cannot_be_overwritten(tmp_path):
    with RunLog(tmp_path) as log, pytest.raises(ValueError, match="'stage'.*time"):
        log.event("stage", time=3.2)


def test_lines_are_printed_as_they_are(tmp_path, capsys):
    line = "[bold]no markup[/bold] :smile: [[1,2],[3,4]] " + "long " * 60
    with RunLog(tmp_path) as log:
        log.say(line)
    assert capsys.readouterr().out == line + "\n"


def test_a_console_can_be_given(tmp_path):
    file = io.StringIO()
    with RunLog(tmp_path, Console(file=file)) as log:
        log.say("hello")
    assert file.getvalue() == "hello\n"


def test_no_framework_is_imported_even_where_tensorflow_is_installed(tmp_path):
    (tmp_path / "tensorflow.py").write_text("")
    code = (
        "import sys, kdjax.reporting\n"
        f"with kdjax.reporting.RunLog({str(tmp_path)!r}) as log: log.scalars(1, {{'loss': 1.0}})\n"
        "print(*({'tensorflow', 'torch', 'jax', 'flax'} & set(sys.modules)))"
    )
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    environment = os.environ | {"PYTHONPATH": path}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""


def test_no_event_is_written_once_the_check_raises(tmp_path):
    def check():
        if gone:
            raise InputError("the folder has gone")

    gone = False
    with RunLog(tmp_path, check=check) as log:
        log.event("begin", name="train")
        gone = True
        with pytest.raises(InputError, match="has gone"):
            log.event("step", step=1)
    assert [row["event"] for row in read_jsonl(tmp_path / "log.jsonl")] == ["begin"]
