import resource
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.errors import InputError
from kdjax.training.checkpoints import KEPT, Checkpoints


def state(value: int) -> dict:
    return {"weights": jnp.full((3, 2), value / 3, jnp.float32), "step": jnp.asarray(value, jnp.int32)}


PROGRESS = {
    "steps": 2,
    "seconds": 1 / 3,
    "history": [{"loss": 0.1}, {"validation": {"strict": {"f1": 0.5}, "n": None}}],
}


@pytest.fixture
def checkpoints(tmp_path):
    """A folder with the checkpoints of steps 1 and 2."""
    written = Checkpoints(tmp_path)
    written.save(1, state(1), {"steps": 1})
    written.save(2, state(2), PROGRESS)
    return tmp_path


def restored_step(folder) -> int:
    return int(Checkpoints(folder).restore(state(0))[0]["step"])


def test_the_latest_comes_back_bit_for_bit(checkpoints):
    restored, progress = Checkpoints(checkpoints).restore(state(0))
    jax.tree.map(np.testing.assert_array_equal, restored, state(2))
    assert jax.tree.map(lambda leaf: leaf.dtype, restored) == jax.tree.map(lambda leaf: leaf.dtype, state(2))
    assert progress == PROGRESS


def test_nothing_comes_from_an_empty_folder(tmp_path):
    assert Checkpoints(tmp_path / "new").restore(state(0)) is None


def test_only_the_last_are_kept(checkpoints):
    Checkpoints(checkpoints).save(3, state(3), {})
    assert sorted(path.name for path in checkpoints.iterdir()) == ["2", "3"] and KEPT == 2


def test_what_a_killed_writer_left_is_not_read(checkpoints):
    """Orbax writes into <step>.orbax-checkpoint-tmp and renames it at the end."""
    half = checkpoints / "3.orbax-checkpoint-tmp"
    shutil.copytree(checkpoints / "2", half)
    shutil.rmtree(half / "state" / "d")
    assert restored_step(checkpoints) == 2
    Checkpoints(checkpoints).save(3, state(3), {})
    assert restored_step(checkpoints) == 3


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:], None]
)
def test_a_damaged_one_is_an_error_that_names_it(checkpoints, damage):
    """And without it the one before is there."""
    largest = max((checkpoints / "2").rglob("d/*"), key=lambda path: path.stat().st_size)
    data = largest.read_bytes()
    largest.unlink()
    if damage:
        largest.write_bytes(damage(data))
    with pytest.raises(InputError, match=rf"checkpoint {checkpoints}/2 is damaged .*; delete this folder"):
        restored_step(checkpoints)
    shutil.rmtree(checkpoints / "2")
    assert restored_step(checkpoints) == 1


def test_counters_that_were_changed_are_damage_too(checkpoints):
    metadata = next(
        path for path in (checkpoints / "2").rglob("*") if path.is_file() and b'"steps"' in path.read_bytes()
    )
    metadata.write_text(metadata.read_text().replace('"steps": 2', '"steps": 1'))
    with pytest.raises(InputError, match=rf"checkpoint {checkpoints}/2 is damaged .*counters"):
        restored_step(checkpoints)


@pytest.mark.parametrize("when", ["before it is written", "half-way", "before the first is cleared away"])
def test_the_same_step_may_be_saved_again_and_broken_off_at_any_time(checkpoints, monkeypatch, when):
    """As at an epoch's end, before and after the validation: one of the two is always there."""

    class Killed(BaseException):
        pass

    def dies(*_, **__):
        raise Killed

    def half_written(path, *_, **__):
        Path(f"{path}.orbax-checkpoint-tmp", "state").mkdir(parents=True)
        raise Killed

    again = PROGRESS | {"validated": 1}
    with monkeypatch.context() as patched, pytest.raises(Killed):
        if when == "before the first is cleared away":
            patched.setattr("kdjax.training.checkpoints._steps", dies)
        else:
            save = dies if when == "before it is written" else half_written
            patched.setattr("kdjax.training.checkpoints.ocp.save_checkpointables", save)
        Checkpoints(checkpoints).save(2, state(2), again)
    found, progress = Checkpoints(checkpoints).restore(state(0))
    jax.tree.map(np.testing.assert_array_equal, found, state(2))
    assert progress == (again if when == "before the first is cleared away" else PROGRESS)
    for _ in range(2):
        Checkpoints(checkpoints).save(2, state(2), again)
        assert Checkpoints(checkpoints).restore(state(0))[1] == again
        assert sorted(path.name for path in checkpoints.iterdir()) == ["1", "2"]


def test_one_of_another_training_is_refused(checkpoints):
    with pytest.raises(InputError, match="checkpoint"):
        Checkpoints(checkpoints).restore({"other": jnp.zeros(3)})


def test_what_finds_no_room_leaves_the_one_before(small_disk):
    """Told before Orbax runs into it."""
    disk, large = small_disk(4096), {"weights": jax.random.normal(jax.random.key(0), (1 << 18,))}
    written = Checkpoints(disk)
    written.save(1, large, {"steps": 1})
    with pytest.raises(InputError, match="checkpoint .*/2 cannot be written .*it takes 4 MiB, of which 3 are free"):
        written.save(2, {"weights": jnp.zeros(3 << 18)}, {})
    assert Checkpoints(disk).restore(large)[1] == {"steps": 1}


def test_a_disk_that_fills_while_it_is_written_leaves_the_one_before(small_disk, monkeypatch):
    """As where another process takes the room meanwhile: Orbax runs into it."""
    disk, large = small_disk(4096), {"weights": jax.random.normal(jax.random.key(0), (1 << 18,))}
    written = Checkpoints(disk)
    written.save(1, large, {"steps": 1})
    monkeypatch.setattr("kdjax.training.checkpoints._check_room", lambda *_: None)
    with pytest.raises(InputError, match="checkpoint .*/2 cannot be written .*No space left on device"):
        written.save(2, {"weights": jax.random.normal(jax.random.key(1), (1 << 20,))}, {})
    assert Checkpoints(disk).restore(large)[1] == {"steps": 1}
    written.save(2, jax.tree.map(jnp.zeros_like, large), {"steps": 2})  # what was left of it is cleared away
    assert Checkpoints(disk).restore(large)[1] == {"steps": 2}


@pytest.mark.parametrize("limit", [0, 200, 500_000], ids=["nothing", "its first file", "half an array"])
def test_one_that_cannot_be_written_to_its_end_is_never_read(tmp_path, limit):
    """The writes themselves fail, as on a disk that fills meanwhile: no file may grow beyond `limit` bytes. Then the same goes on."""
    large = {"weights": jax.random.normal(jax.random.key(0), (1 << 18,))}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    Checkpoints(tmp_path).save(1, large, {"steps": 1})
    for step in (1, 2):  # in its place, and behind it
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
            with pytest.raises(InputError, match="cannot be written .*File too large.*from the one before"):
                Checkpoints(tmp_path).save(step, large, {"steps": 2})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert Checkpoints(tmp_path).restore(large)[1] == {"steps": 1}
    Checkpoints(tmp_path).save(2, large, {"steps": 2})
    assert Checkpoints(tmp_path).restore(large)[1] == {"steps": 2}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


def test_a_progress_of_many_steps_is_no_burden(tmp_path):
    """It is one JSON document: as arrays, a history of 2000 rows took 7 seconds to write."""
    history = [{"step": step, "loss": step / 7, "gradient_norm": 0.5, "seconds": step / 3} for step in range(2000)]
    Checkpoints(tmp_path).save(1, state(1), {"history": history})
    assert Checkpoints(tmp_path).restore(state(0))[1] == {"history": history}
    assert sum(path.is_file() for path in tmp_path.rglob("*")) < 30
