"""A teacher without a model for tests of the cache, and a program that is killed in the middle of its pass.

python teacher_stand_in.py TOKENIZER_FOLDER CACHE_DIR MOMENT      # see MOMENTS
"""

import hashlib
import os
import signal
import sys
from pathlib import Path

from kdjax.sources import ModelFiles, load_tokenizer
from kdjax.teacher import Call, Teacher, TeacherCache
from kdjax.teacher.hf import HfWorker
from kdjax.teacher.journal import Journal

IDENTITY = {"kind": "hf", "model": "0123abcd", "dtype": "float32"}
BATCH_SIZE = 3
CALLS = [Call((("user", f"question {n} " + "x" * (n % 4)),), max_new_tokens=4, top_k_logprobs=n % 3) for n in range(10)]


class StandIn(HfWorker):
    """Answers from the key of a request, and from the companions in its batch, as rounding makes a real model do."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.setting = {"device": "none", "versions": {}}
        self.batches: list[list[str]] = []

    def check(self, requests):
        pass

    def start(self):
        pass

    def answer(self, requests):
        self.batches.append([request.key for request in requests])
        return [self._reply(request, "".join(self.batches[-1])) for request in requests]

    def close(self):
        pass

    def _reply(self, request, companions):
        noise = hashlib.sha256((request.key + companions).encode()).digest()
        n, k = 1 + noise[0] % request.call.max_new_tokens, request.call.top_k_logprobs
        return {
            "finish_reason": "length" if n == request.call.max_new_tokens else "stop",
            "token_ids": [5 + byte for byte in noise[1 : 1 + n]],
            "target_logprobs": [-byte / 7 for byte in noise[6 : 6 + n]],
            "logsumexp": [byte / 3 for byte in noise[11 : 11 + n]],
            "top_ids": [list(range(k)) for _ in range(n)],
            "top_logprobs": [[-0.1 * rank for rank in range(k)] for _ in range(n)],
        }


def stand_in_teacher(
    tokenizer_folder: Path, cache_dir: Path, identity=IDENTITY, batch_size: int = BATCH_SIZE
) -> Teacher:
    """A teacher whose worker is a `StandIn`."""
    tokenizer = load_tokenizer(ModelFiles("tiny", tokenizer_folder))
    return Teacher(
        TeacherCache(cache_dir, identity), tokenizer, StandIn(tokenizer), "tiny", batch_size, log=lambda message: None
    )


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


def die_before_shard_is_whole():
    Path.rename = die


def die_before_journal_is_removed():
    Journal.remove = die


MOMENTS = [die_asking_third_batch, die_inside_third_line, die_before_shard_is_whole, die_before_journal_is_removed]

if __name__ == "__main__":
    with stand_in_teacher(Path(sys.argv[1]), Path(sys.argv[2])) as teacher:
        teacher.ask(CALLS[:1])  # the manifest is there, and one answer is sealed
        {moment.__name__: moment for moment in MOMENTS}[sys.argv[3]]()
        teacher.ask(CALLS)
