import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from teacher_stand_in import CALLS, IDENTITY, StandIn, stand_in_teacher

import kdjax
from kdjax.errors import InputError
from kdjax.teacher import open_teacher


@pytest.fixture
def cache_dir(tiny_folder, tmp_path):
    """A cache that holds the answers to CALLS."""
    with stand_in_teacher(tiny_folder, tmp_path) as teacher:
        teacher.ask(CALLS)
    return tmp_path


def test_equal_calls_are_asked_once_and_answered_each(tiny_folder, tmp_path):
    with stand_in_teacher(tiny_folder, tmp_path) as teacher:
        progress = []
        answers = teacher.ask([CALLS[1], CALLS[0], CALLS[1]], on_batch=lambda *counts: progress.append(counts))
        assert [answer.key for answer in answers] == [teacher._request(CALLS[n]).key for n in (1, 0, 1)]
        assert teacher._worker.batches == [[request.key for request in teacher_plan(teacher, CALLS[:2])]]
        assert progress == [(2, 2)] and (teacher.stats.asked, teacher.stats.cached) == (2, 0)


def teacher_plan(teacher, calls):
    return sorted(map(teacher._request, calls), key=lambda request: (-len(request.prompt_ids), request.key))


def test_progress_and_stats_count_what_was_cached(tiny_folder, tmp_path):
    with stand_in_teacher(tiny_folder, tmp_path) as teacher:
        teacher.ask(CALLS[:4])
        progress = []
        answers = teacher.ask(CALLS, on_batch=lambda *counts: progress.append(counts))
        assert progress == [(4, 10), (7, 10), (10, 10)]
        assert (teacher.stats.asked, teacher.stats.cached) == (10, 4)
        assert teacher.stats.prompt_tokens == sum(len(answer.prompt_ids) for answer in answers)
        assert teacher.stats.completion_tokens == sum(len(answer.token_ids) for answer in answers)
        progress.clear()
        assert teacher.ask([]) == []
        teacher.ask(CALLS, on_batch=lambda *counts: progress.append(counts))
        assert progress == [(10, 10)]


def test_the_end_of_turn_is_not_part_of_the_text(tiny_folder, tmp_path, monkeypatch):
    reply = {"logsumexp": [0.0] * 3, "target_logprobs": [0.0] * 3, "top_ids": [[]] * 3, "top_logprobs": [[]] * 3}
    hi = [ord("h") - 28, ord("i") - 28]  # printable ASCII begins at id 5 with "!"
    for finish, last, text in (("stop", 1, "hi"), ("stop", hi[0], "hi"), ("length", hi[0], "hih")):
        monkeypatch.setattr(StandIn, "_reply", lambda *_: reply | {"finish_reason": finish, "token_ids": [*hi, last]})  # noqa: B023
        with stand_in_teacher(tiny_folder, tmp_path / f"{finish}{last}") as teacher:
            (answer,) = teacher.ask(CALLS[:1])
        assert answer.text == text and len(answer.token_ids) == 3


@pytest.mark.parametrize("source", ["", "tiny", "0123", "name"])
def test_replay_finds_the_recorded_teacher(cache_dir, tiny_folder, source):
    with stand_in_teacher(tiny_folder, cache_dir) as recorded:
        expected = [answer.to_row() for answer in recorded.ask(CALLS)]
    source = recorded.cache.folder.name[:6] if source == "name" else source
    with open_teacher("replay", source, cache_dir) as teacher:
        assert [answer.to_row() for answer in teacher.ask(CALLS)] == expected


@pytest.mark.parametrize("where", ["config.json", "generation_config.json"])
@pytest.mark.parametrize("earlier", [False, True], ids=["", "recorded by an earlier version"])
def test_replay_where_the_end_token_is_not_the_tokenizers(tokenizer_folder, tmp_path, where, earlier):
    """The cache keeps the end token, and a cache without one is replayed, since nothing is generated."""
    folder, cache_dir = shutil.copytree(tokenizer_folder, tmp_path / "model"), tmp_path / "cache"
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"eos_token": None}))
    (folder / where).write_text(json.dumps({"eos_token_id": 1}))
    with stand_in_teacher(folder, cache_dir) as recorded:
        expected = [answer.to_row() for answer in recorded.ask(CALLS)]
    kept = recorded.cache.folder / "tokenizer" / "generation_config.json"
    assert json.loads(kept.read_text())["eos_token_id"] == 1
    if earlier:
        kept.unlink()
    with open_teacher("replay", "", cache_dir) as teacher:
        assert [answer.to_row() for answer in teacher.ask(CALLS)] == expected
        assert teacher.tokenizer.eos_ids == (() if earlier else (1,))


@pytest.mark.parametrize(
    "change, explanation",
    [
        ({"max_new_tokens": 5}, "max_new_tokens: asked 5, cached 4"),
        ({"temperature": 0.5}, "temperature: asked 0.5, cached 0.0"),
        ({"temperature": 0.5, "seed": 7}, "seed: asked 7, cached 0; temperature: asked 0.5, cached 0.0"),
        ({"top_k_logprobs": 4}, "top_k_logprobs: asked 4, cached 0"),
        (
            {"conversation": (("user", "question 0!"),)},
            "prompt: from token 11 of 14 on, asked '!<|end|><|assistant|>', cached ' <|end|>",
        ),
    ],
)
def test_a_miss_in_a_replay_is_explained(cache_dir, change, explanation):
    call = dataclasses.replace(CALLS[0], **change)
    with open_teacher("replay", "", cache_dir) as teacher:
        with pytest.raises(InputError, match="1 calls are not in the cache") as error:
            teacher.ask([CALLS[0], call])
        said = teacher.explain(call).partition(" differs in ")[2]
        assert sorted(said.split("; ")) == sorted(explanation.split("; ")) or said.startswith(explanation)
        assert explanation.split("; ")[0] in str(error.value)
        assert teacher.explain(CALLS[0]) == "the call is in the cache"


def test_a_miss_by_identity_is_explained(cache_dir, tiny_folder):
    with stand_in_teacher(tiny_folder, cache_dir, identity=IDENTITY | {"dtype": "bfloat16"}) as teacher:
        assert "differs in dtype: asked bfloat16, cached float32" in teacher.explain(CALLS[0])


def test_replay_that_fits_no_teacher_or_two_names_them(cache_dir, tiny_folder, tmp_path):
    with pytest.raises(InputError, match="0 recorded teachers match.*"):
        open_teacher("replay", "other", cache_dir)
    with stand_in_teacher(tiny_folder, cache_dir, identity=IDENTITY | {"dtype": "bfloat16"}) as second:
        second.ask(CALLS[:1])
    with pytest.raises(InputError, match="2 recorded teachers match") as error:
        open_teacher("replay", "tiny", cache_dir)
    assert second.cache.folder.name in str(error.value)
    with open_teacher("replay", second.cache.folder.name, cache_dir) as teacher:
        assert len(teacher.ask(CALLS[:1])) == 1
    with pytest.raises(InputError, match="no recorded teacher"):
        open_teacher("replay", "", tmp_path / "nowhere")


def test_replay_writes_nothing(cache_dir):
    before = {path: path.stat().st_mtime_ns for path in cache_dir.rglob("*")}
    with open_teacher("replay", "", cache_dir) as teacher:
        teacher.ask(CALLS)
    assert {path: path.stat().st_mtime_ns for path in cache_dir.rglob("*")} == before


WITHOUT_TORCH = """
import importlib.machinery, sys
find = importlib.machinery.PathFinder.find_spec
hidden = ("torch", "transformers", "jax")
importlib.machinery.PathFinder.find_spec = classmethod(
    lambda cls, name, *rest: None if name.split(".")[0] in hidden else find(name, *rest)
)
"""


def test_replay_needs_no_torch_and_hf_says_that_it_does(cache_dir, tiny_folder):
    program = f"""{WITHOUT_TORCH}
from kdjax.errors import InputError
from kdjax.teacher import open_teacher
from teacher_stand_in import CALLS
with open_teacher("replay", "", {str(cache_dir)!r}) as teacher:
    print(len(teacher.ask(CALLS)))
with open_teacher("hf", {str(tiny_folder)!r}, {str(cache_dir)!r}) as teacher:
    try:
        teacher.ask(CALLS)
    except InputError as error:
        print(error)
"""
    path = os.pathsep.join([str(Path(kdjax.__file__).parents[1]), str(Path(__file__).parent)])
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=False,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    lines = done.stdout.splitlines()
    assert lines[0] == "10", done.stderr
    assert lines[-1] == 'the "hf" teacher needs torch and transformers: pip install -e ".[teacher]"'


@pytest.mark.parametrize(
    "kind, options, message",
    [
        ("annotations", {}, "one of hf, http, replay"),
        ("hf", {"dtype": "int8"}, "float32, bfloat16, float16"),
        ("hf", {"batch_size": 0}, "batch_size"),
    ],
)
def test_what_cannot_be_opened_is_refused(tiny_folder, tmp_path, kind, options, message):
    with pytest.raises(InputError, match=message):
        open_teacher(kind, str(tiny_folder), tmp_path, **options)
