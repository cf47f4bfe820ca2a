"""Processes that ask stand-in teachers, and are killed or run side by side.

python cache_processes.py TOKENIZER_FOLDER ROOT killed      # for each of MOMENTS: a process that is killed, on the cache ROOT/<moment>
python cache_processes.py TOKENIZER_FOLDER ROOT together    # two at once on the cache ROOT/cache; what each saw is in ROOT/<n>.json

The packages are imported once, and each process is a fork.
"""

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from itertools import count
from pathlib import Path

import datasets  # noqa: F401 (once, before the forks)
import pyarrow  # noqa: F401
from teacher_stand_in import CALLS, StandIn, stand_in_teacher

from kdjax.teacher import TeacherCache, shards
from kdjax.teacher.journal import Journal

SHARES = (CALLS[:7], CALLS[3:])  # what two processes ask at once


def die(*_):
    """End this process as a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_asking_third_batch():
    answer = StandIn.answer
    StandIn.answer = lambda self, requests: (
        die() if len(self.batches) == 3 else answer(self, requests)
    )  # one was sealed before


def die_inside_third_line():
    append = Journal.append

    def torn(self, entry):
        append(self, entry)
        lines = self.path.read_bytes().splitlines(keepends=True)
        if len(lines) == 3:
            os.truncate(self.path, self.path.stat().st_size - len(lines[-1]) // 2)
            die()

    Journal.append = torn


def die_before_third_line_is_synced():
    append, lines = Journal.append, count(1)

    def unsynced(self, entry):
        if next(lines) == 3:
            os.fsync = die
        append(self, entry)

    Journal.append = unsynced


def die_before_shard_has_checksums():
    shards._checksums = die


def die_before_shard_is_whole():
    Path.rename = die


def die_after_shard_is_whole():
    rename = Path.rename
    Path.rename = lambda self, to: (rename(self, to), die())


def die_before_manifest():
    TeacherCache._write_manifest = die


def die_inside_manifest():
    rename = Path.rename
    Path.rename = lambda self, to: die() if Path(to).name == "manifest.json" else rename(self, to)


def die_before_journal_is_removed():
    Journal.remove = die


def die_after_journal_is_removed():
    remove = Journal.remove
    Journal.remove = lambda self: (remove(self), die())


MOMENTS = [
    die_asking_third_batch,
    die_inside_third_line,
    die_before_third_line_is_synced,
    die_before_shard_has_checksums,
    die_before_shard_is_whole,
    die_after_shard_is_whole,
    die_before_manifest,
    die_inside_manifest,
    die_before_journal_is_removed,
    die_after_journal_is_removed,
]


def ask_until(moment: Callable[[], None], tokenizer_folder: Path, cache_dir: Path) -> None:
    """Ask all calls, and die on the way."""
    with stand_in_teacher(tokenizer_folder, cache_dir) as teacher:
        teacher.ask(CALLS[:1])  # the manifest is there, and one answer is sealed
        moment()
        teacher.ask(CALLS)


def ask_share(number: int, tokenizer_folder: Path, root: Path) -> None:
    """Ask some of the calls, slowly, and write down what was asked and what the answers are."""
    answer = StandIn.answer
    StandIn.answer = lambda self, requests: (time.sleep(0.05), answer(self, requests))[1]
    with stand_in_teacher(tokenizer_folder, root / "cache") as teacher:
        answers = [answer.to_row() for answer in teacher.ask(SHARES[number])]
        asked = [key for batch in teacher._worker.batches for key in batch]
    (root / f"{number}.json").write_text(json.dumps({"asked": asked, "answers": answers}))


def fork(run: Callable, *args) -> int:
    """Run in a process of its own, and give its id."""
    if (pid := os.fork()) == 0:
        failed = True
        try:
            run(*args)
            failed = False
        finally:
            if failed:
                traceback.print_exc()
            os._exit(failed)
    return pid


if __name__ == "__main__":
    folder, root = Path(sys.argv[1]), Path(sys.argv[2])
    if sys.argv[3] == "killed":
        for moment in MOMENTS:
            _, status = os.waitpid(fork(ask_until, moment, folder, root / moment.__name__), 0)
            assert status == signal.SIGKILL, (moment, status)
    else:
        for pid in [fork(ask_share, number, folder, root) for number in range(2)]:
            assert os.waitpid(pid, 0)[1] == 0
