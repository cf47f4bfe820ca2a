"""A teacher without a model, for tests of the cache."""

import hashlib
from pathlib import Path

from kdjax.sources import ModelFiles, load_tokenizer
from kdjax.teacher import Call, Teacher, TeacherCache
from kdjax.teacher.hf import HfWorker

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
    tokenizer_folder: Path, cache_dir: Path, identity=IDENTITY, batch_size: int = BATCH_SIZE, log=lambda message: None
) -> Teacher:
    """A teacher whose worker is a `StandIn`."""
    tokenizer = load_tokenizer(ModelFiles("tiny", tokenizer_folder))
    return Teacher(TeacherCache(cache_dir, identity), tokenizer, StandIn(tokenizer), "tiny", batch_size, log)
