"""Any sequence of passes, crashes and flipped bits: what was journalled stays, exactly under its key."""

import os
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from kdjax.teacher import Answer, Call, TeacherCache
from kdjax.teacher.calls import canonical_json, make_request


class Crash(BaseException):
    """The end of a process, for a test that stays alive."""


@contextmanager
def crash_at(operation: int):
    """Raise Crash instead of the n-th thing done to the disk (from 0)."""
    left = iter(range(operation))

    def dying(real):
        def act(*args, **options):
            if next(left, None) is None:
                raise Crash
            return real(*args, **options)

        return act

    with (
        suppress(Crash),
        patch("os.fsync", dying(os.fsync)),
        patch("os.truncate", dying(os.truncate)),
        patch.object(Path, "rename", dying(Path.rename)),
        patch.object(Path, "unlink", dying(Path.unlink)),
    ):
        yield


HTTP = {"kind": "http", "model": "tiny"}


def made_up(number: int) -> Answer:
    """The answer to the n-th call; there is but one, so what a cache gives can be compared."""
    request = make_request(HTTP, Call((("user", f"question {number}"),), max_new_tokens=4), None)
    empty = dict.fromkeys(("prompt_ids", "token_ids", "target_logprobs", "logsumexp", "top_ids", "top_logprobs"), ())
    said = {"text": f"answer {number} é", "finish_reason": "stop", "prompt_tokens": number, "completion_tokens": 2}
    return Answer.from_row({"key": request.key, "fields": canonical_json(request.fields)} | said | empty)


ANSWERS = {answer.key: answer.to_row() for answer in map(made_up, range(40))}
CRASHES = st.one_of(st.just(1000), st.integers(0, 12))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 3), CRASHES),
        st.tuples(st.just("seal"), st.just(0), CRASHES),
        st.tuples(st.just("flip"), st.integers(0, 10**6), st.integers(0, 7)),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=40)
@given(steps=STEPS)
def test_every_journalled_answer_stays_under_its_key(tmp_path_factory, steps):
    cache_dir = tmp_path_factory.mktemp("cache")
    kept: set[str] = set()
    fresh = iter(ANSWERS)
    for what, number, more in steps:
        cache = TeacherCache(cache_dir, HTTP)  # reopened, as by the next process
        if what == "flip":
            kept -= flip(cache, number, more)
        else:
            with crash_at(more), cache.writing("tiny", None, lambda text: None):
                if what == "seal":
                    cache.seal()
                for key in [next(fresh) for _ in range(number)]:
                    cache.append([Answer.from_row(ANSWERS[key])], {"seconds": 0.0})
                    kept.add(key)
        cache = TeacherCache(cache_dir, HTTP)
        assert kept <= set(cache) and len(set(cache)) == len(cache) == len(list(cache))
        assert all(cache[key].to_row() == ANSWERS[key] for key in cache)


def flip(cache: TeacherCache, where: int, bit: int) -> set[str]:
    """Flip a bit of the cache's journal or shards; gives the answers that may be lost by that."""
    paths = [path for path in cache.folder.rglob("*") if path.is_file() and "damaged" not in path.parts]
    paths = [path for path in sorted(paths) if path.name == "journal.jsonl" or path.parent.parent.name == "shards"]
    paths = [path for path in paths if path.stat().st_size]
    if not paths:
        return set()
    path = paths[where % len(paths)]
    content = bytearray(path.read_bytes())
    content[where % len(content)] ^= 1 << bit
    shard = "" if path.name == "journal.jsonl" else path.parent.name
    at_risk = {key for key in cache if cache._sealed.get(key, ("",))[0] == shard}
    path.unlink()  # what is mapped into memory keeps its bytes
    path.write_bytes(content)
    return at_risk
