"""How a process finds the others; that they then work together is tested in tests/study/test_team.py."""

import os
import subprocess
import sys

import jax
import pytest
from jax._src.clusters import OmpiCluster, SlurmCluster

from kdjax.errors import InputError
from kdjax.training import processes


@pytest.fixture
def joined(monkeypatch):
    """What JAX was told, by each call."""
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *told, **seconds: calls.append(told))
    for size, needed in processes.LAUNCHERS.values():
        for name in (size, *needed):
            monkeypatch.delenv(name, raising=False)
    for name in processes.UNREAD:
        monkeypatch.delenv(name, raising=False)
    return calls


SLURM, OPEN_MPI = (names for _, names in processes.LAUNCHERS.values())


def test_alone_nobody_is_looked_for(joined):
    processes.join()
    assert joined == []


@pytest.mark.parametrize("name, needed", processes.LAUNCHERS.values(), ids=processes.LAUNCHERS)
@pytest.mark.parametrize("tasks, told", [("4", [(None, None, None)]), ("1", []), ("", []), ("many", [])])
def test_a_cluster_is_known_by_its_environment(joined, monkeypatch, name, needed, tasks, told):
    """JAX itself reads from it who the others are."""
    for variable in needed:
        monkeypatch.setenv(variable, "1")
    monkeypatch.setenv(name, tasks)
    processes.join()
    assert joined == told


def test_what_is_needed_is_what_jax_reads(monkeypatch):
    """With these variables, and no others, JAX finds that it is one of several."""
    monkeypatch.setattr(os, "environ", {name: "1" for name in SLURM})
    assert SlurmCluster.is_env_present() and SlurmCluster.get_process_id() == SlurmCluster.get_local_process_id() == 1
    monkeypatch.setattr(os, "environ", {name: "tcp://1:2" for name in OPEN_MPI})
    assert OmpiCluster.is_env_present()


@pytest.mark.parametrize("name, needed", processes.LAUNCHERS.values(), ids=processes.LAUNCHERS)
def test_a_part_of_a_launchers_variables_is_an_error(joined, monkeypatch, name, needed):
    monkeypatch.setenv(name, "2")
    for absent in needed:
        for variable in needed:
            monkeypatch.setenv(variable, "1")
        monkeypatch.delenv(absent)
        with pytest.raises(
            InputError, match=f"{name}=2.* {absent};.*--coordinator=HOST:PORT --processes=2 --process=0"
        ):
            processes.join()
    assert joined == []


def test_what_jax_cannot_read_is_an_error(monkeypatch):
    for variable in ("SLURM_STEP_NUM_TASKS", *SLURM):
        monkeypatch.setenv(variable, "2")
    monkeypatch.setenv("SLURM_PROCID", "first")
    with pytest.raises(InputError, match=r"Slurm .*first.*--coordinator"):
        processes.join()


def test_a_process_that_waits_says_for_whom_and_gives_up(tmp_path):
    """Alone with all variables of a Slurm step of two, as in `srun --pty bash`."""
    variables = dict.fromkeys(SLURM, "0") | {"SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2"}
    variables |= {"SLURM_STEP_NODELIST": "localhost", "SLURM_JOB_ID": str(os.getpid())}
    code = "from kdjax.training import processes as p; p.JOIN, p.SILENCE = 4, 1; p.join()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )
    said = [line for line in done.stderr.splitlines() if "Slurm (SLURM_STEP_NUM_TASKS=2)" in line]
    assert done.returncode == 1 and [line.split()[0] for line in said] == ["waiting", "error:"]
    assert all("--coordinator=HOST:PORT --processes=2 --process=0" in line for line in said)


def test_arguments_come_before_the_environment(joined, monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    processes.join("10.0.0.1:1234", 2, 1)
    assert joined == [("10.0.0.1:1234", 2, 1)]


@pytest.mark.parametrize(
    "told",
    [
        ("10.0.0.1", 2, 0),
        ("10.0.0.1:1234", 2, 2),
        ("", 2, 0),
        ("10.0.0.1:1234", 0, -1),
        ("host:0", 2, 0),
        ("host:99999", 2, 0),
    ],
)
def test_half_of_it_is_an_error(joined, told):
    with pytest.raises(InputError, match="give all three"):
        processes.join(*told)
    assert joined == []


@pytest.mark.parametrize("host", ["nohost.invalid", "http://10.0.0.1", "http://", "x" * 70])
def test_a_host_that_no_machine_has_is_an_error_at_once(joined, host):
    with pytest.raises(InputError, match=rf"--coordinator={host}:1234: no machine has the name '{host}'"):
        processes.join(f"{host}:1234", 2, 0)
    assert joined == []


def test_an_address_of_ipv6_is_a_host(joined):
    processes.join("[::1]:1234", 2, 0)
    assert joined == [("[::1]:1234", 2, 0)]


@pytest.mark.parametrize("name", processes.UNREAD)
def test_variables_that_start_nothing_are_an_error(joined, monkeypatch, name):
    """Else each of the processes would do the whole work."""
    monkeypatch.setenv(name, "1")
    with pytest.raises(InputError, match=f"{name}=1: these variables do not start several processes.*--coordinator"):
        processes.join()
    processes.join("127.0.0.1:1234", 2, 0)
    assert joined == [("127.0.0.1:1234", 2, 0)]
