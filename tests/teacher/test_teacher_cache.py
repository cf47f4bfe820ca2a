import hashlib
import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from datasets import load_from_disk
from teacher_stand_in import BATCH_SIZE, CALLS, IDENTITY, stand_in_teacher

from kdjax.errors import InputError
from kdjax.teacher import Answer, TeacherCache
from kdjax.teacher.calls import sha256_json
from kdjax.teacher.shards import open_shard, write_shard


@pytest.fixture
def ask(tokenizer_folder, tmp_path):
    """Ask calls of a stand-in whose cache is in `tmp_path`; gives the answers and the teacher."""

    def ask(calls, cache_dir=tmp_path / "cache", **options):
        with stand_in_teacher(tokenizer_folder, cache_dir, **options) as teacher:
            return teacher.ask(calls), teacher

    return ask


def rows(answers: list[Answer]) -> list[dict]:
    return [answer.to_row() for answer in answers]


def shard_bytes(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted((folder / "shards").rglob("*"))
        if path.is_file()
    }


def test_the_layout(ask, tmp_path):
    _, teacher = ask(CALLS)
    folder = tmp_path / "cache" / sha256_json(IDENTITY)[:16]
    assert teacher.cache.folder == folder
    assert sorted(path.name for path in folder.iterdir()) == ["lock", "manifest.json", "shards", "tokenizer"]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["identity"] == IDENTITY and manifest["sources"] == ["tiny"]
    (sealed,) = manifest["passes"]
    assert (
        sealed["answers"] == 10 and sealed["runs"][0]["batches"] == 4 and sealed["runs"][0]["batch_size"] == BATCH_SIZE
    )
    (shard,) = (folder / "shards").iterdir()
    assert shard.name == sealed["shard"]
    table = load_from_disk(str(shard))
    assert table.cache_files and table["key"][:] == sorted(teacher.cache)  # memory-mapped, sorted
    for line in (shard / "sha256sums.txt").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((shard / name).read_bytes()).hexdigest() == digest


def test_the_second_time_nothing_is_asked(ask):
    first, teacher = ask(CALLS)
    assert [len(batch) for batch in teacher._worker.batches] == [3, 3, 3, 1]
    second, teacher = ask(CALLS)
    assert teacher._worker.batches == [] and rows(second) == rows(first)
    assert (teacher.stats.asked, teacher.stats.cached) == (0, 10)


def test_only_what_is_new_is_asked(ask):
    ask(CALLS[:4])
    _, teacher = ask(CALLS)
    assert sum(map(len, teacher._worker.batches)) == 6 and len(teacher.cache) == 10
    assert len(list((teacher.cache.folder / "shards").iterdir())) == 2


def test_another_identity_has_another_cache(ask):
    ask(CALLS)
    _, teacher = ask(CALLS, identity=IDENTITY | {"dtype": "bfloat16"})
    assert teacher.stats.asked == 10


def test_the_order_of_the_calls_leaves_no_trace(ask, tmp_path):
    ask(CALLS)
    answers, teacher = ask(CALLS[::-1], cache_dir=tmp_path / "other")
    assert shard_bytes(teacher.cache.folder) == shard_bytes(tmp_path / "cache" / teacher.cache.folder.name)
    assert [answer.key for answer in answers] == [teacher._request(call).key for call in CALLS[::-1]]


def interrupt(tokenizer_folder, cache_dir, calls, after):
    """Break a pass off when `after` calls are answered."""
    with stand_in_teacher(tokenizer_folder, cache_dir) as teacher, pytest.raises(KeyboardInterrupt):
        teacher.ask(calls, on_batch=interrupt_after(after))
    return teacher


def test_answers_of_an_unfinished_pass_are_answers(ask, tokenizer_folder, tmp_path):
    interrupt(tokenizer_folder, tmp_path / "cache", CALLS[::2], after=3)
    cache = TeacherCache(tmp_path / "cache", IDENTITY)
    assert len(cache) == 3 and not any(cache.sealed(key) for key in cache)
    _, undisturbed = ask(CALLS, cache_dir=tmp_path / "other")
    _, teacher = ask(CALLS)  # another pass, whose own batches are cut as ever and then asked without what is known
    rest = [[key for key in batch if key not in cache] for batch in undisturbed._worker.batches]
    assert teacher._worker.batches == [batch for batch in rest if batch]
    assert [len(batch) for batch in rest] != [3, 3, 1]


def test_a_pass_that_is_torn_twice_is_readable(ask, tokenizer_folder, tmp_path):
    journal = interrupt(tokenizer_folder, tmp_path / "cache", CALLS, after=3).cache.folder / "journal.jsonl"
    with journal.open("ab") as file:
        file.write(b'{"answers": [{"te')
    interrupt(tokenizer_folder, tmp_path / "cache", CALLS, after=6)
    assert len(TeacherCache(tmp_path / "cache", IDENTITY)) == 6
    _, teacher = ask(CALLS)
    assert teacher.stats.asked == 4


def interrupt_after(count):
    def on_batch(done, total):
        if done >= count:
            raise KeyboardInterrupt

    return on_batch


@pytest.mark.parametrize(
    "content", ["{", '{"identity": 3}', json.dumps({"identity": {"kind": "other"}, "sources": [], "passes": []})]
)
def test_a_foreign_manifest_is_refused(ask, content):
    _, teacher = ask(CALLS[:1])
    (teacher.cache.folder / "manifest.json").write_text(content)
    with pytest.raises(InputError, match=r"manifest\.json"):
        ask(CALLS)


def test_a_second_run_waits_and_asks_nothing_again(ask, tokenizer_folder, tmp_path):
    first, second = (stand_in_teacher(tokenizer_folder, tmp_path / "cache") for _ in range(2))
    waiting = []
    second._log = waiting.append
    other = threading.Thread(target=second.ask, args=(CALLS,))

    def start_other(done, total):
        if done == BATCH_SIZE:
            other.start()
            while not waiting:
                time.sleep(0.01)

    first.ask(CALLS, on_batch=start_other)
    other.join(timeout=20)
    assert "waiting" in waiting[0] and second._worker.batches == [] and second.stats.cached == 10


def test_a_shard_keeps_every_bit(ask, tmp_path):
    answers, _ = ask(CALLS)
    table = open_shard(write_shard(tmp_path / "shards", answers[::-1]))
    ordered = sorted(answers, key=lambda answer: answer.key)
    assert rows([Answer.from_row(row) for row in table]) == rows(ordered)
    assert all(answer.top_ids.shape == (len(answer.token_ids), answer.fields["top_k_logprobs"]) for answer in ordered)
    assert ordered[0].target_logprobs.dtype == np.float32
