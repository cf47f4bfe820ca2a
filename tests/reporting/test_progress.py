import io

import pytest
from rich.console import Console

from kdjax.reporting import Progress, RunLog, duration


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def output(tmp_path):
    """(log, lines so far) of a run whose output is a file."""
    file = io.StringIO()
    with RunLog(tmp_path, Console(file=file, width=160)) as log:
        yield log, lambda: file.getvalue().splitlines()


@pytest.mark.parametrize(
    "seconds, text",
    [(0, "0:00"), (59.4, "0:59"), (59.6, "1:00"), (61, "1:01"), (3599.7, "1:00:00"), (36061, "10:01:01")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_the_first_step_does_not_count_for_the_rate(output, clock):
    log, lines = output
    with Progress(11, "training", log, clock=clock) as progress:
        clock.now += 50  # compilation and one step
        progress.update(loss=2.0)
        assert lines() == ["training 1/11, 0:50 elapsed, loss 2"]
        for _ in range(5):
            clock.now += 4
            progress.update(loss=1.23456)
    # the fourth of these steps is 16 s after the first line: 7 or 6 steps of 4 s remain
    assert lines()[1] == "training 5/11, 1:06 elapsed, 0:24 left, loss 1.235"
    assert lines()[2] == "training 6/11, 1:10 elapsed, 0:20 left, loss 1.235"  # closing shows where it ended


def test_a_file_gets_a_line_at_most_every_15_seconds(output, clock):
    log, lines = output
    with Progress(1000, "generating", log, clock=clock) as progress:
        for _ in range(1000):
            clock.now += 0.1
            progress.update()
    assert len(lines()) == 1 + 99.9 // 15 + 1  # the first, one every 15 s, the last
    assert lines()[-1] == "generating 1000/1000, 1:40 elapsed"


def test_updates_may_count_several_and_start_late(output, clock):
    log, lines = output
    with Progress(100, "steps", log, every=0, clock=clock) as progress:
        clock.now += 7  # of getting ready
        progress.skip(40)
        clock.now += 10
        progress.update(10)
        clock.now += 5
        progress.update(0)  # nothing is known yet about the time of a step
        progress.update(25, session="a")
    assert lines() == [
        "steps 50/100, 0:10 elapsed",
        "steps 50/100, 0:15 elapsed",
        "steps 75/100, 0:15 elapsed, 0:05 left, session a",
    ]


def test_nothing_to_do_prints_nothing(output, clock):
    log, lines = output
    with Progress(0, "training", log, clock=clock):
        pass
    assert lines() == []


def test_a_terminal_shows_one_live_line_below_what_is_said(tmp_path, clock):
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=80, color_system=None, _environ={"TERM": "xterm"})
    with RunLog(tmp_path, console) as log, Progress(3, "training", log, clock=clock) as progress:
        for step in range(3):
            clock.now += 1
            progress.update()
            log.say(f"said {step}")
    text = file.getvalue()
    assert "training 2/3, 0:02 elapsed, 0:01 left" in text and "said 1\n" in text
    assert text.rindex("training 3/3, 0:03 elapsed") > text.rindex("said 2")
    assert "\x1b[2K" in text  # the line is erased and drawn again, not printed below itself


def test_a_loop_within_a_loop_has_the_terminal_to_itself(tmp_path, clock):
    """Training closes its line before a validation; its next step opens it again."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=80, color_system=None, _environ={"TERM": "xterm"})
    with RunLog(tmp_path, console) as log, Progress(4, "training", log, clock=clock) as progress:
        for epoch in (1, 2):
            for _ in range(2):
                clock.now += 1
                progress.update()
            progress.close()
            with Progress(1, "validation", log, clock=clock) as inner:
                inner.update()
            log.say(f"epoch {epoch}")
    text = file.getvalue()
    hidden, shown = text.count("\x1b[?25l"), text.count("\x1b[?25h")
    assert hidden == shown == 4  # two loops, twice: the cursor comes back each time
    ends = [text.index(line) for line in ("training 2/4", "validation 1/1", "epoch 1", "training 4/4", "epoch 2")]
    assert ends == sorted(ends)
    assert text.rindex("training") < text.rindex("validation") < text.rindex("epoch 2")  # no stale line at the end
