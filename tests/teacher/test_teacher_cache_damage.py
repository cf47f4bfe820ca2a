"""The cache when runs share it, are killed, or find it damaged: no answer lost, doubled, or under another call's key."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest.mock import patch

import pytest
from cache_processes import MOMENTS, SHARES
from hypothesis import given, settings
from hypothesis import strategies as st
from teacher_stand_in import CALLS, IDENTITY, stand_in_teacher

import kdjax
from kdjax.errors import InputError
from kdjax.teacher import Answer, Call, TeacherCache, open_teacher
from kdjax.teacher.calls import canonical_json, make_request
from kdjax.teacher.shards import write_shard


def rows(answers: list[Answer]) -> list[dict]:
    return [answer.to_row() for answer in answers]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def passes(folder: Path) -> list[tuple]:
    """(shard, answers, batches) of each pass in the manifest."""
    noted = json.loads((folder / "manifest.json").read_text())["passes"]
    return [(entry["shard"], entry["answers"], [run["batches"] for run in entry["runs"]]) for entry in noted]


@pytest.fixture
def ask(tokenizer_folder, tmp_path):
    """Ask calls of a stand-in; gives the answers and the teacher. What it says of damage goes to `ask.said`."""

    def ask(calls, cache_dir=tmp_path / "cache"):
        with stand_in_teacher(tokenizer_folder, cache_dir, log=say) as teacher:
            return teacher.ask(calls), teacher

    def say(text):
        if "damaged" in text:
            ask.said.append(text)

    ask.said = []
    return ask


@pytest.fixture(scope="module")
def processes(tokenizer_folder, tmp_path_factory):
    """Run `cache_processes.py`; gives the folder that it worked in."""

    def processes(what: str) -> Path:
        root = tmp_path_factory.mktemp(what)
        here = Path(__file__).parent
        environment = os.environ | {"PYTHONPATH": str(Path(kdjax.__file__).parents[1])}
        command = [sys.executable, str(here / "cache_processes.py"), str(tokenizer_folder), str(root), what]
        subprocess.run(command, check=True, env=environment, timeout=120)
        return root

    return processes


@pytest.fixture(scope="module")
def killed(processes):
    return processes("killed")


@pytest.fixture(scope="module")
def undisturbed(tokenizer_folder, tmp_path_factory):
    """The cache of a pass that nothing happened to, and its answers."""
    with stand_in_teacher(tokenizer_folder, tmp_path_factory.mktemp("undisturbed")) as teacher:
        teacher.ask(CALLS[:1])
        return teacher, rows(teacher.ask(CALLS))


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: moment.__name__)
def test_a_pass_that_was_killed_is_continued(ask, killed, undisturbed, moment):
    teacher, answers = undisturbed
    again, resumed = ask(CALLS, cache_dir=killed / moment.__name__)
    left = 1 if moment.__name__ in ("die_asking_third_batch", "die_inside_third_line") else 0
    assert resumed._worker.batches == teacher._worker.batches[4 - left :]
    assert rows(again) == answers and ask.said == []
    assert files(resumed.cache.folder / "shards") == files(teacher.cache.folder / "shards")
    assert len(TeacherCache(killed / moment.__name__, IDENTITY)) == 10
    ask([Call((("user", "one more"),), max_new_tokens=4)], cache_dir=killed / moment.__name__)
    assert passes(resumed.cache.folder)[:2] == passes(
        teacher.cache.folder
    )  # noted by the pass that came next, at the latest
    assert not (resumed.cache.folder / "journal.jsonl").exists()


def test_two_processes_ask_each_call_once_and_get_the_same_answers(processes):
    root = processes("together")
    one, two = (json.loads((root / f"{number}.json").read_text()) for number in range(2))
    asked = one["asked"] + two["asked"]
    assert len(asked) == len(set(asked)) == 10
    seen = {}
    for row in one["answers"] + two["answers"]:
        assert seen.setdefault(row["key"], row) == row
    assert len(one["answers"]) + len(two["answers"]) == sum(map(len, SHARES)) > len(seen) == 10
    cache = TeacherCache(root / "cache", IDENTITY)
    assert {key: cache[key].to_row() for key in cache} == seen


@pytest.mark.parametrize("damage", ["flip", "truncate", "lose", "add", "no checksums"])
def test_a_damaged_shard_is_set_aside_and_asked_again(ask, damage, tmp_path):
    answers, teacher = ask(CALLS[:4])
    others, _ = ask(CALLS[4:])
    shard = teacher.cache.folder / "shards" / passes(teacher.cache.folder)[0][0]
    data = next(shard.glob("*.arrow"))
    content = bytearray(data.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        data.write_bytes(content)
    elif damage == "truncate":
        data.write_bytes(content[:-8])
    elif damage == "lose":
        data.unlink()
    elif damage == "add":
        (shard / "data-00001-of-00002.arrow").write_bytes(content)
    else:
        (shard / "sha256sums.txt").unlink()
    found = files(shard)

    with open_teacher("replay", "", tmp_path / "cache", log=ask.said.append) as replay:
        with pytest.raises(
            InputError, match=f"4 calls are not in the cache.*{shard.name} is damaged.*its 4 answers are missing"
        ):
            replay.ask(CALLS)
        assert rows(replay.ask(CALLS[4:])) == rows(others)
    assert files(shard) == found  # a replay changes nothing

    again, repairing = ask(CALLS)
    assert rows(again) == rows(answers + others) and repairing.stats.asked == 4
    aside = teacher.cache.folder / "damaged"
    assert files(aside / shard.name) == found
    assert f"set aside in {aside}" in ask.said[-1] and f"{shard} is damaged" in ask.said[-1]
    assert [entry[:2] for entry in passes(teacher.cache.folder)] == [
        entry[:2] for entry in [passes(teacher.cache.folder)[0], (shard.name, 4)]
    ]
    assert TeacherCache(tmp_path / "cache", IDENTITY).damage == []

    (shard / "sha256sums.txt").write_text("")  # and once more
    ask(CALLS)
    assert sorted(path.name for path in aside.iterdir()) == [shard.name, f"{shard.name}-2"]


def test_a_shard_that_a_killed_pass_left_damaged_comes_from_the_journal(ask, killed, tokenizer_folder, tmp_path):
    ask(CALLS[:1])
    _, teacher = ask(CALLS)
    (shard,) = [
        path for path in (teacher.cache.folder / "shards").iterdir() if path.name == passes(teacher.cache.folder)[1][0]
    ]
    with teacher.cache.writing("tiny", teacher.tokenizer, ask.said.append):  # as if the journal were not removed yet
        teacher.cache.append(
            [teacher.cache[key] for key in teacher.cache if teacher.cache._sealed[key][0] == shard.name],
            {"seconds": 0.0},
        )
    (shard / "state.json").write_text("{}")
    _, teacher = ask(CALLS)
    assert teacher.stats.asked == 0 and (teacher.cache.folder / "damaged" / shard.name).is_dir()


def test_an_answer_under_a_wrong_key_is_never_served(ask, tokenizer_folder):
    (answer, other), teacher = ask(CALLS[:2])
    for shard in (teacher.cache.folder / "shards").iterdir():
        for path in shard.iterdir():
            path.unlink()
        shard.rmdir()
    swapped = [
        Answer.from_row(answer.to_row() | {"key": other.key}),
        Answer.from_row(other.to_row() | {"key": answer.key}),
    ]
    write_shard(teacher.cache.folder / "shards", swapped)
    again, teacher = ask(CALLS[:2])
    assert rows(again) == rows([answer, other]) and teacher.stats.asked == 2
    assert "belongs to another call" in ask.said[0]
    with teacher.cache.writing("tiny", teacher.tokenizer, print):
        teacher.cache.append(swapped, {"seconds": 0.0})
    assert teacher.cache[answer.key].to_row() == swapped[1].to_row()  # what this process was given, until it looks
    again, teacher = ask(CALLS[:2])
    assert rows(again) == rows([answer, other]) and len(TeacherCache(teacher.cache.folder.parent, IDENTITY).damage) == 1


def break_off(tokenizer_folder, cache_dir, calls, after):
    """A pass that ends when `after` calls are answered; gives its journal."""

    def on_batch(done, total):
        if done >= after:
            raise KeyboardInterrupt

    with stand_in_teacher(tokenizer_folder, cache_dir) as teacher, pytest.raises(KeyboardInterrupt):
        teacher.ask(calls, on_batch=on_batch)
    return teacher.cache.folder / "journal.jsonl"


def test_a_damaged_journal_line_is_set_aside_and_asked_again(ask, tokenizer_folder, tmp_path):
    answers, _ = ask(CALLS, cache_dir=tmp_path / "undisturbed")
    journal = break_off(tokenizer_folder, tmp_path / "cache", CALLS, after=9)
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[1] = (
        lines[1].replace(b'"finish_reason": "stop"', b'"finish_reason": "stoq"').replace(b'"length"', b'"lengti"')
    )
    journal.write_bytes(b"".join(lines))
    with open_teacher("replay", "", tmp_path / "cache", log=ask.said.append) as replay:
        assert len(replay.cache) == 6
        with pytest.raises(InputError, match=r"4 calls are not in the cache.*journal\.jsonl: line 2 is damaged"):
            replay.ask(CALLS)
    again, teacher = ask(CALLS)
    assert rows(again) == rows(answers) and teacher.stats.asked == 4
    assert "line 2 is damaged" in ask.said[-1] and "set aside" in ask.said[-1]
    assert (teacher.cache.folder / "damaged" / "journal.jsonl").read_bytes() == lines[1]


@pytest.mark.parametrize(
    "line", [b"{}", b"[]", b'{"entry": {"answers": [{"key": "a"}], "provenance": {}}, "sha256": "0"}', b"\xff"]
)
def test_a_line_that_is_no_batch_of_this_teacher_is_damage(ask, line):
    _, teacher = ask(CALLS[:1])
    (teacher.cache.folder / "journal.jsonl").write_bytes(line + b"\n")
    cache = TeacherCache(teacher.cache.folder.parent, IDENTITY)
    assert len(cache) == 1 and len(cache.damage) == 1


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
    at_risk = {
        key for key in cache if path.name == "journal.jsonl" or cache._sealed.get(key, ("",))[0] == path.parent.name
    }
    path.unlink()  # what is mapped into memory keeps its bytes
    path.write_bytes(content)
    return at_risk
