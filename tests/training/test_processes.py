"""How a process finds the others; that they then work together is tested in tests/study/test_team.py."""

import pytest

from kdjax.errors import InputError
from kdjax.training import processes


@pytest.fixture
def joined(monkeypatch):
    """What JAX was told, by each call."""
    calls = []
    monkeypatch.setattr(processes, "_initialize", lambda *told: calls.append(told))
    for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    return calls


def test_alone_nobody_is_looked_for(joined):
    processes.join()
    assert joined == []


@pytest.mark.parametrize("name", ["SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"])
@pytest.mark.parametrize("tasks, told", [("4", [()]), ("1", [])])
def test_a_cluster_is_known_by_its_environment(joined, monkeypatch, name, tasks, told):
    """JAX itself reads from it who the others are."""
    monkeypatch.setenv(name, tasks)
    processes.join()
    assert joined == told


def test_arguments_come_before_the_environment(joined, monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    processes.join("10.0.0.1:1234", 2, 1)
    assert joined == [("10.0.0.1:1234", 2, 1)]


@pytest.mark.parametrize("told", [("10.0.0.1", 2, 0), ("10.0.0.1:1234", 2, 2), ("", 2, 0), ("10.0.0.1:1234", 0, -1)])
def test_half_of_it_is_an_error(joined, told):
    with pytest.raises(InputError, match="give all three"):
        processes.join(*told)
    assert joined == []
