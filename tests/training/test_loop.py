"""12 examples in batches of 5, 5 and 2, each of up to 3 micro-batches: 3 steps per epoch, 12 steps in all, dropout on."""

import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from training_helpers import FEW, PAD, SETTINGS, random_examples, tiny_student

from kdjax.data import load_domain
from kdjax.errors import InputError
from kdjax.prompting import training_example
from kdjax.training import Training, batch_members, lay_out, plan_groups, preview
from kdjax.training.checkpoints import Checkpoints
from kdjax.training.clock import compile_seconds

EXAMPLES = random_examples("a", 12, prefix=13)
EPOCHS = [EXAMPLES] * 4
STEPS = 12


class Stopped(Exception):
    """What the tests stop a training with."""


def stop_at(step: int):
    def hear(row: dict) -> None:
        if row["step"] == step:
            raise Stopped

    return hear


def scripted(*f1: float):
    """A validation that gives epoch after epoch these scores, and keeps the adapters it saw."""

    def validate(adapter: dict) -> dict:
        seen.append(jax.tree.map(np.array, adapter))
        return {"strict": {"f1": f1[len(seen) - 1]}}

    seen: list[dict] = []
    return validate, seen


def assert_equal(one, other) -> None:
    """Bit for bit."""
    jax.tree.map(np.testing.assert_array_equal, one, other)


def without_times(row: dict) -> dict:
    return {name: value for name, value in row.items() if name != "seconds"}


@pytest.fixture(scope="module")
def student(model_folder):
    return tiny_student(model_folder, FEW)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("whole")


@pytest.fixture(scope="module")
def compiled_by_step() -> list[float]:
    """What `compile_seconds` said before the whole training, at each of its steps, and after it."""
    return []


@pytest.fixture(scope="module")
def whole(student, folder, compiled_by_step) -> Training:
    """The training that nothing interrupted."""

    def hear(_) -> None:
        compiled_by_step.append(compile_seconds())

    training = Training(student, EPOCHS, SETTINGS, folder, on_event=hear)
    hear(None)
    training.run()
    hear(None)
    return training


def assert_as_if_nothing_had_happened(training: Training, whole: Training) -> None:
    assert_equal(training.state, whole.state)
    assert_equal(training.best, whole.best)
    found, expected = training.progress, whole.progress
    assert [without_times(row) for row in found.history] == [without_times(row) for row in expected.history]
    counted = ("steps", "examples", "real_tokens", "padded_tokens", "target_tokens", "best_epoch", "best_score")
    assert {name: getattr(found, name) for name in counted} == {name: getattr(expected, name) for name in counted}


def test_it_learns(whole):
    losses = [row["loss"] for row in whole.progress.history]
    assert [row["step"] for row in whole.progress.history] == list(range(1, STEPS + 1))
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])


def test_history_and_counts(whole):
    progress = whole.progress
    groups = plan_groups(EXAMPLES, SETTINGS.micro_batch_tokens, one_row=True)
    steps = [batch_members(12, SETTINGS.batch_size, SETTINGS.seed, step) for step in range(STEPS)]
    batches = [batch for step in steps for batch in lay_out([EXAMPLES[i] for i in step], groups, 1, PAD)]
    assert progress.counts() == {
        "steps": STEPS,
        "examples": 4 * 12,
        "real_tokens": 4 * sum(map(len, EXAMPLES)),
        "padded_tokens": sum(len(batch.prefix) + batch.rows.tokens.size for batch in batches),
        "target_tokens": 4 * sum(len(example.completion_ids) for example in EXAMPLES),
        "seconds": progress.seconds,
        "compile_seconds": progress.compile_seconds,
        "best_epoch": 4,  # without a validation the last is kept
    }
    assert progress.seconds > 0 and progress.compile_seconds > 0
    last = progress.history[-1]
    assert last["epoch"] == 4.0 and last["learning_rate"] > 0 and last["seconds"] <= progress.seconds
    assert_equal(whole.best, whole.state.adapter)


def test_a_training_stopped_twice_ends_bit_for_bit_the_same(student, whole, tmp_path):
    """Once before the first checkpoint, once in mid-epoch between two; the parts' counts and times add up."""
    with pytest.raises(Stopped):
        Training(student, EPOCHS, SETTINGS, tmp_path, on_event=stop_at(1)).run()
    with pytest.raises(Stopped):
        Training(student, EPOCHS, SETTINGS, tmp_path, on_event=stop_at(8)).run()
    starts = []
    last = Training(student, EPOCHS, SETTINGS, tmp_path, on_start=lambda batches, step: starts.append(step))
    assert_equal(last.run(), whole.best)
    assert starts == [6]  # checkpoints every 2 steps and at the end of epochs: 2, 3, 4, 6
    assert_as_if_nothing_had_happened(last, whole)
    seconds = [row["seconds"] for row in last.progress.history]
    assert seconds == sorted(seconds)


@pytest.fixture(scope="module")
def train_and_tell(model_folder, compiled):
    """Runs the training in a process of its own with so many devices, killed once it told so many steps, or sent
    SIGTERM. Returns its status and what it told (after the steps a digest)."""
    script = Path(__file__).with_name("train_and_tell.py")

    def run(folder: Path, devices: int = 1, killed: int = 0, terminated: int = 0) -> tuple[int, list[str]]:
        environment = os.environ | {
            "JAX_COMPILATION_CACHE_DIR": str(compiled),
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        }
        command = [sys.executable, script, model_folder, folder, *([str(terminated)] if terminated else [])]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            if killed:
                while int(process.stdout.readline()) < killed:
                    pass
                process.kill()
            said = process.stdout.read().split()
        return process.returncode, said

    return run


def test_a_killed_training_ends_bit_for_bit_the_same(student, whole, tmp_path, train_and_tell):
    """kill -9 at any moment: it may well hit a checkpoint half-written."""
    moment = random.randint(2, 8)
    assert train_and_tell(tmp_path, killed=moment)[0] == -signal.SIGKILL, f"killed at step {moment}"
    starts = []
    training = Training(student, EPOCHS, SETTINGS, tmp_path, on_start=lambda batches, step: starts.append(step))
    training.run()
    assert max(0, moment - 2) <= starts[0] <= moment + 1, f"killed at step {moment}"  # checkpoints every 2 steps
    assert_as_if_nothing_had_happened(training, whole)


def test_on_four_devices_too(train_and_tell, tmp_path):
    status, (*steps, whole) = train_and_tell(tmp_path / "whole", 4)
    assert status == 0 and steps[0] == "1" and len(whole) == 64
    moment = random.randint(4, 8)
    assert train_and_tell(tmp_path / "killed", 4, killed=moment)[0] == -signal.SIGKILL
    status, (*steps, digest) = train_and_tell(tmp_path / "killed", 4)
    assert status == 0 and digest == whole, f"killed at step {moment}"
    assert int((steps or [STEPS])[0]) >= moment - 2  # it went on from a checkpoint


def test_sigterm_saves_and_ends_with_143(student, whole, tmp_path, train_and_tell):
    """Between two checkpoints, of which there is one each two steps: not a step is lost."""
    moment = random.choice([1, 4, 7])
    status, _ = train_and_tell(tmp_path, terminated=moment)
    starts = []
    training = Training(student, EPOCHS, SETTINGS, tmp_path, on_start=lambda batches, step: starts.append(step))
    training.run()
    # Steps 1 and 7 are told while the next is under way; 4, which is saved anyway, before that.
    assert status == 143 and starts == [{1: 2, 4: 4, 7: 8}[moment]], f"sent at step {moment}"
    assert_as_if_nothing_had_happened(training, whole)


def test_a_validation_that_was_broken_off_is_done_again(student, tmp_path):
    """The steps before it are not."""
    validate, seen = scripted(0.2, 0.5, 0.5, 0.4)

    def breaks(adapter: dict) -> dict:
        raise Stopped

    with pytest.raises(Stopped):
        Training(student, EPOCHS, SETTINGS, tmp_path, validate=breaks).run()
    steps = []
    training = Training(
        student, EPOCHS, SETTINGS, tmp_path, validate=validate, on_event=lambda row: steps.append(row["step"])
    )
    training.run()
    assert steps[:2] == [3, 4] and len(seen) == 4 and training.progress.best_epoch == 2


def test_what_is_not_placed_by_name_is_refused(student, tmp_path, monkeypatch):
    """A batch that came to the devices behind one's back would be copied in every step."""
    monkeypatch.setattr("kdjax.training.parallel.Parallel.put_shares", lambda self, rows: rows)
    with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device transfer"):
        Training(student, EPOCHS, SETTINGS, tmp_path).run()


def test_a_finished_training_is_not_run_again(student, whole, folder):
    heard = []
    again = Training(
        student, EPOCHS, SETTINGS, folder, on_start=lambda *_: heard.append("start"), on_event=heard.append
    )
    assert_equal(again.run(), whole.best)
    assert heard == []
    assert_as_if_nothing_had_happened(again, whole)


def test_the_epoch_that_is_best_on_validation_is_kept(student, tmp_path):
    """The earlier of equals, over a stop in a later epoch."""
    validate, seen = scripted(0.2, 0.5, 0.5, 0.4)
    with pytest.raises(Stopped):
        Training(student, EPOCHS, SETTINGS, tmp_path, validate=validate, on_event=stop_at(11)).run()
    rows = []
    training = Training(student, EPOCHS, SETTINGS, tmp_path, validate=validate, on_event=rows.append)
    best = training.run()
    assert len(seen) == 4 and (training.progress.best_epoch, training.progress.best_score) == (2, 0.5)
    assert_equal(best, seen[1])
    assert_equal(training.state.adapter, seen[3])
    assert rows[-1] == {"step": 12, "epoch": 4, "validation": {"strict": {"f1": 0.4}}}
    assert [row["epoch"] for row in training.progress.history if "validation" in row] == [1, 2, 3, 4]


def test_a_training_that_ends_in_mid_epoch_validates_there(student, tmp_path):
    validate, seen = scripted(0.5, 0.6)
    training = Training(student, EPOCHS, replace(SETTINGS, max_steps=4), tmp_path, validate=validate)
    assert_equal(training.run(), seen[1])
    assert training.progress.steps == 4 and training.progress.best_epoch == 2


def test_no_steps_leave_the_adapter_as_it_was(student, tmp_path):
    training = Training(
        student, EPOCHS, replace(SETTINGS, max_steps=0), tmp_path, on_start=lambda *_: pytest.fail("started")
    )
    assert_equal(training.run(), student.adapter)


def test_each_shape_is_compiled_once(whole, compiled_by_step):
    groups, seen, last = (
        plan_groups(EXAMPLES, SETTINGS.micro_batch_tokens, one_row=True),
        set(),
        2,
    )  # an epoch's end has programs too
    for step in range(STEPS):
        members = batch_members(12, SETTINGS.batch_size, SETTINGS.seed, step)
        shapes = {batch.rows.tokens.shape for batch in lay_out([EXAMPLES[i] for i in members], groups, 1, PAD)}
        last, seen = (step if shapes - seen else last), seen | shapes
    before, *at_steps, after = compiled_by_step
    assert at_steps[0] > before  # else nobody listened
    assert last < STEPS - 4 and at_steps[last] == after


def test_a_loss_that_is_not_finite_names_the_step_and_its_sessions(student, tmp_path):
    settings = replace(SETTINGS, learning_rate=1e30, checkpoint_every=1)
    training = Training(student, EPOCHS, settings, tmp_path)
    with pytest.raises(
        FloatingPointError,
        match=r"^step 2: loss \S+, gradient norm \S+, largest weight \S+; sessions: a/a\d+(, a/a\d+){4}$",
    ):
        training.run()
    assert training.progress.steps == 1
    restored, progress = Checkpoints(tmp_path).restore({"train": training.state, "best": training.best})
    assert progress["steps"] == 1 and all(
        np.isfinite(leaf).all() for leaf in jax.tree.leaves(restored["train"].adapter)
    )


def test_an_update_that_overflows_is_never_saved(student, tmp_path):
    """The gradient of its step is finite; found with it, before the next one is blamed."""
    settings = replace(SETTINGS, learning_rate=3e38, weight_decay=10.0, checkpoint_every=1)
    with pytest.raises(
        FloatingPointError, match=r"^step 1: loss \d\S+, gradient norm \d\S+, largest weight (inf|nan);"
    ):
        Training(student, EPOCHS, settings, tmp_path).run()
    assert not [*tmp_path.glob("[0-9]*")]


def test_a_loss_that_was_not_finite_once_leaves_no_trace(student, whole, tmp_path, monkeypatch):
    """As of a machine that failed: the next run goes on from the checkpoint before, and ends bit for bit the same."""
    training, calls = Training(student, EPOCHS, SETTINGS, tmp_path), []
    step = training._trainer.step

    def fails_at_the_fifth(*args):
        calls.append(args)
        state, metrics = step(*args)
        return state, metrics | {"loss": float("nan")} if len(calls) == 5 else metrics

    monkeypatch.setattr(training._trainer, "step", fails_at_the_fifth)
    with pytest.raises(FloatingPointError, match=r"^step 5: loss nan"):
        training.run()
    starts = []
    again = Training(student, EPOCHS, SETTINGS, tmp_path, on_start=lambda batches, step: starts.append(step))
    assert_equal(again.run(), whole.best)
    assert starts == [4]  # checkpoints every 2 steps and at the end of epochs: 2, 3, 4
    assert_as_if_nothing_had_happened(again, whole)


def test_no_examples_are_an_error(student, tmp_path):
    for nothing in ([], [[], []]):
        with pytest.raises(InputError, match="no training examples"):
            Training(student, nothing, SETTINGS, tmp_path)


def test_an_epoch_may_tell_its_examples_otherwise(student, whole, tmp_path):
    """The first epoch is as before, in the second the same members are told in other words."""
    told = [replace(example, completion_ids=example.completion_ids[::-1]) for example in EXAMPLES]
    training = Training(student, [EXAMPLES, told, *EPOCHS[2:]], replace(SETTINGS, max_steps=6), tmp_path)
    training.run()
    losses, before = ([row["loss"] for row in each.progress.history] for each in (training, whole))
    batches = training._batches(4)
    fed = {tuple(row) for batch in batches for row in batch.rows.labels.reshape(-1, batch.rows.labels.shape[-1])}
    assert losses[0] == before[0] and losses[3] != before[3]
    assert fed == {
        tuple(row)
        for batch in lay_out(
            [told[i] for i in batch_members(12, SETTINGS.batch_size, SETTINGS.seed, 4)],
            training._groups,
            1,
            PAD,
        )
        for row in batch.rows.labels.reshape(-1, batch.rows.labels.shape[-1])
    }


def test_epochs_of_different_sizes_are_refused(student, tmp_path):
    with pytest.raises(ValueError, match="numbers differ"):
        Training(student, [EXAMPLES, EXAMPLES[:5]], SETTINGS, tmp_path)


@pytest.mark.parametrize("devices", [1, 2])
def test_preview_shows_prompt_and_target(student, devices):
    """The longest example, which stands first in the first row, put together again from prefix, row and labels."""
    sessions = load_domain("demo", "", "demo").splits["train"][:9]
    examples = [training_example(student.tokenizer, "demo", session) for session in sessions]
    batch = lay_out(examples, plan_groups(examples, 1000, one_row=True), devices, PAD)[0]
    shown = examples[batch.members[0]]
    assert len(batch.prefix) > 100
    assert preview(student, batch) == f"{shown.prompt}⟦{shown.completion}⟧"
