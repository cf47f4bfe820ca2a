"""One folder, one process: with real processes, killed and not, and two open files as two machines have them."""

import errno
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from kdjax.errors import InputError
from kdjax.lock import LOCK, LOOK, check_free, in_turn, locked

HOLD = "import sys; from pathlib import Path; from kdjax.lock import locked\nwith locked(Path(sys.argv[1])): print('held', flush=True); input()"
TRY = HOLD.replace("input()", "")


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of tmp_path/run until a line comes."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def other(folder: Path) -> subprocess.CompletedProcess:
    """Another process that takes the lock and gives it back at once."""
    return subprocess.run([sys.executable, "-c", TRY, str(folder)], check=False, capture_output=True, text=True)


def test_a_second_process_is_refused_with_the_first_ones_name(holder, tmp_path):
    said = f"{tmp_path / 'run'} is in use: process {holder.pid} on {socket.gethostname()} has worked in it since 2"
    for attempt in (lambda: check_free(tmp_path / "run"), lambda: locked(tmp_path / "run").__enter__()):
        with pytest.raises(InputError) as error:
            attempt()
        assert said in str(error.value) and "choose another --workdir" in str(error.value)
    assert said in other(tmp_path / "run").stderr


@pytest.mark.parametrize("end", ["killed", "at its end"])
def test_the_lock_falls_with_its_process(holder, tmp_path, end):
    if end == "killed":
        os.kill(holder.pid, signal.SIGKILL)
    else:
        holder.communicate("\n")
    assert holder.wait() == (-signal.SIGKILL if end == "killed" else 0)
    check_free(tmp_path / "run")
    assert other(tmp_path / "run").stdout == "held\n"


def test_a_child_of_the_holder_does_not_keep_the_lock(tmp_path):
    """As a teacher's process does not, which outlives a killed run for a moment."""
    start = "import subprocess; print(subprocess.Popen(['sleep', '60']).pid, flush=True); input()"
    command = [sys.executable, "-c", HOLD.replace("input()", start), str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        child = [process.stdout.readline() for _ in range(2)][1]
        process.kill()
        process.wait()
        os.kill(int(child), 0)  # it is there
        check_free(tmp_path / "run")
        os.kill(int(child), signal.SIGKILL)


def test_in_one_process_a_folder_is_locked_once_and_others_beside_it(tmp_path):
    """As a study holds its own folder and that of each run in turn."""
    for _ in range(2):
        with locked(tmp_path / "study"), locked(tmp_path / "study" / "cells" / "a"):
            for folder in (tmp_path / "study", tmp_path / "study" / "cells" / "a"):
                with pytest.raises(InputError, match=f"process {os.getpid()} on"):
                    locked(folder).__enter__()
    assert {path.name for path in (tmp_path / "study").iterdir()} == {LOCK, "cells"}
    assert (tmp_path / "study" / LOCK).read_text() == ""  # no name of one that has gone


def test_of_many_processes_at_once_one_wins(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = [subprocess.Popen(command, **pipes) for _ in range(5)]
    lost = []
    while len(lost) < 4:
        lost += [process for process in started if process not in lost and process.poll() is not None]
    (won,) = [process for process in started if process not in lost]
    assert won.communicate("\n")[0] == "held\n" and won.returncode == 0
    for process in lost:
        said, why = process.communicate()
        assert process.returncode == 1 and said == "" and "is in use: " in why


def test_a_name_that_is_not_written_yet(tmp_path):
    with locked(tmp_path):
        (tmp_path / LOCK).write_text("")
        with pytest.raises(InputError, match="is in use: another process works in it"):
            check_free(tmp_path)


def test_nothing_is_made_by_looking(tmp_path):
    check_free(tmp_path)
    check_free(tmp_path / "nowhere")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch, capsys, number):
    def flock(file, kind):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(tmp_path / "run"):
        check_free(tmp_path / "run")
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"{tmp_path / 'run'} is on a file system without locks" in said


def test_another_fault_of_the_lock_is_not_hidden(tmp_path, monkeypatch):
    def flock(file, kind):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="broken"):
        locked(tmp_path).__enter__()


@pytest.mark.parametrize("end", ["delete", "move", "replace", "delete the lock"])
def test_the_holder_notices_that_its_folder_has_gone(tmp_path, end):
    """Else the same command works in a new folder of this name, beside the one that still runs."""
    folder = tmp_path / "run"
    with locked(folder) as check_held:
        check_held()
        if end == "delete the lock":
            (folder / LOCK).unlink()
        else:
            folder.rename(tmp_path / "elsewhere")
        if end == "delete":
            shutil.rmtree(tmp_path / "elsewhere")
        if end == "replace":
            with locked(folder):
                pass
        with pytest.raises(InputError, match=f"{folder} or its .lock was deleted or moved while this run worked in it"):
            check_held()


def test_a_folder_deleted_before_its_lock_is_taken_is_not_held(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", lambda file, kind: (tmp_path / LOCK).unlink())
    with pytest.raises(InputError, match="was deleted or moved"):
        locked(tmp_path).__enter__()


def test_a_mere_look_keeps_nobody_out(tmp_path):
    with locked(tmp_path):
        pass
    with (tmp_path / LOCK).open() as looker:
        fcntl.flock(looker, fcntl.LOCK_SH)
        timer = threading.Timer(LOOK / 5, fcntl.flock, [looker, fcntl.LOCK_UN])
        timer.start()
        with locked(tmp_path):
            timer.join()


@pytest.mark.parametrize("job", [check_free, lambda folder: locked(folder).__enter__()], ids=["look", "take"])
@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("nowhere"), os.mkfifo])
def test_what_is_no_lock_file(tmp_path, job, make):
    make(tmp_path / LOCK)
    with pytest.raises(InputError, match=".lock should be a file.*delete it"):
        job(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_who_waits_for_a_lock_goes_on_where_there_are_none(tmp_path, monkeypatch, number):
    def flock(file, kind):
        raise OSError(number, "no locks")

    monkeypatch.setattr(fcntl, "flock", flock)
    lines = []
    with in_turn(tmp_path / "lock", "waiting", lines.append):
        pass
    assert len(lines) == 1 and f"{tmp_path} is on a file system without locks" in lines[0]


def test_a_lock_that_is_held_is_waited_for(tmp_path):
    lines = []
    holder = (tmp_path / "lock").open("w")
    fcntl.flock(holder, fcntl.LOCK_EX)

    def log(line):
        lines.append(line)
        holder.close()

    with in_turn(tmp_path / "lock", "waiting", log):
        assert lines == ["waiting"]
        with (tmp_path / "lock").open() as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
