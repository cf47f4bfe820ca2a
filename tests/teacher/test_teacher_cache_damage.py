"""The cache when runs share it, are killed, or find it damaged: no answer lost, doubled, or under another call's key."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cache_processes import MOMENTS, SHARES
from teacher_stand_in import CALLS, IDENTITY, stand_in_teacher

import kdjax
from kdjax.errors import InputError
from kdjax.teacher import Answer, Call, TeacherCache, open_teacher
from kdjax.teacher.journal import Journal
from kdjax.teacher.shards import _checksums, write_shard


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
    noted = passes(resumed.cache.folder)[:2]  # by the pass that came next, at the latest
    assert noted == passes(teacher.cache.folder)
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


@pytest.mark.parametrize("damage", ["flip", "truncate", "lose", "add", "no checksums", "forged"])
def test_a_damaged_shard_is_set_aside_and_asked_again(ask, damage, tmp_path):
    answers, teacher = ask(CALLS[:4])
    others, _ = ask(CALLS[4:])
    first, second = passes(teacher.cache.folder)
    shard = teacher.cache.folder / "shards" / first[0]
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
    elif damage == "forged":  # as Arrow finds
        data.write_bytes(b"no answers")
        (shard / "sha256sums.txt").write_text(_checksums(shard))
    else:
        (shard / "sha256sums.txt").unlink()
    found = files(shard)

    with open_teacher("replay", "", tmp_path / "cache", log=ask.said.append) as replay:
        missing = f"4 calls are not in the cache.*{shard.name} is damaged.*with 4 answers"
        with pytest.raises(InputError, match=missing):
            replay.ask(CALLS)
        assert rows(replay.ask(CALLS[4:])) == rows(others)
    assert files(shard) == found  # a replay changes nothing

    again, repairing = ask(CALLS)
    assert rows(again) == rows(answers + others) and repairing.stats.asked == 4
    aside = teacher.cache.folder / "damaged"
    assert files(aside / shard.name) == found
    assert f"set aside in {aside}" in ask.said[-1] and f"{shard} is damaged" in ask.said[-1]
    assert passes(teacher.cache.folder) == [second, first]
    assert TeacherCache(tmp_path / "cache", IDENTITY).damage == []

    (shard / "sha256sums.txt").write_text("")  # and once more
    ask(CALLS)
    assert sorted(path.name for path in aside.iterdir()) == [shard.name, f"{shard.name}-2"]


def test_a_shard_that_is_damaged_before_its_journal_is_removed_comes_from_the_journal(ask):
    answers, teacher = ask(CALLS)
    with teacher.cache.writing("tiny", teacher.tokenizer, pytest.fail):
        teacher.cache.append(answers, {"seconds": 0.0})  # as it is when a pass is killed at its very end
    (shard,) = (teacher.cache.folder / "shards").iterdir()
    (shard / "state.json").write_text("{}")
    again, teacher = ask(CALLS)
    assert rows(again) == rows(answers) and teacher.stats.asked == 0
    assert (teacher.cache.folder / "damaged" / shard.name).is_dir() and shard.is_dir()


def test_an_answer_under_a_wrong_key_is_never_served(ask):
    (answer, other), teacher = ask(CALLS[:2])
    shutil.rmtree(teacher.cache.folder / "shards")
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
    "entry", [{}, {"answers": [{"key": "a"}], "provenance": {}}, {"answers": [3]}, {"answers": None}]
)
def test_a_line_that_is_no_batch_of_this_teacher_is_damage(ask, entry):
    _, teacher = ask(CALLS[:1])
    Journal(teacher.cache.folder / "journal.jsonl").append(entry)
    cache = TeacherCache(teacher.cache.folder.parent, IDENTITY)
    assert len(cache) == 1 and len(cache.damage) == 1
