"""Workdirs that are not a run's, or of which something was damaged: the error names the file, and nothing in them is touched."""

import json
import subprocess
from pathlib import Path

import pytest
from listed import each

from configs import generate as generate_config
from configs import sft_text, study_format
from kdjax.data import load_domain
from kdjax.decoding import Completion
from kdjax.errors import InputError
from kdjax.knowledge import Card, write_cards
from kdjax.prompting import INSTRUCTION
from kdjax.reporting import write_json, write_jsonl
from kdjax.sources import resolve
from kdjax.student import LoraConfig, load_student
from kdjax.study import check_place, generate, run, study
from kdjax.study.examples import questions, teller
from kdjax.study.scores import prediction_rows, read_predictions
from kdjax.study.workdir import claim

RULES = "knowledge/demo/rules.jsonl"


@pytest.fixture
def workdir(tmp_path) -> Path:
    """A run that was begun: its config.json and a card."""
    folder = tmp_path / "run"
    with claim(folder, sft_text.get_config("smoke"), {"demo": load_domain("demo", "", "demo")}):
        pass
    session = load_domain("demo", "", "demo").splits["train"][0]
    write_cards(folder / RULES, [Card("rules", "demo", "Cups go with kettles.", (session.id,), (), 1, 9)])
    return folder


def content(name: str, data: bytes):
    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_bytes(data)

    return change


def card(**fields):
    def change(folder: Path) -> None:
        told = json.loads((folder / RULES).read_text()) | fields
        (folder / RULES).write_text(json.dumps({name: value for name, value in told.items() if value is not ...}))

    return change


BOMB = b"[" * 10**5
AGAIN = "delete it, and the same command makes it again"
# what is wrong: (what is done to the folder, what the error says)
WORKDIRS = {
    "no config.json": (
        lambda folder: (folder / "config.json").unlink(),
        "has no config.json, so it is not a run of kdjax",
    ),
    "nothing in config.json": (content("config.json", b""), "config.json: not readable", "choose another --workdir"),
    "half of config.json": (content("config.json", b'{"config": {'), "config.json: not readable", "choose another"),
    "a list for config.json": (content("config.json", b"[]"), "config.json: expected a JSON object, found list"),
    "no config in config.json": (content("config.json", b'{"data": {}}'), "config.json: config or data is missing"),
    "a bomb of lists for config.json": (content("config.json", BOMB), "config.json: not readable", "choose another"),
    "another config": (content("config.json", b'{"config": {}, "data": {}}'), "it differs in: config.data: None →"),
    "half of metrics.json": (content("metrics.json", b'{"test":'), "metrics.json: not readable", AGAIN),
    "a list for metrics.json": (content("metrics.json", b"[]"), "metrics.json: expected a JSON object", AGAIN),
    "nothing in metrics.json": (content("metrics.json", b"{}"), "metrics.json: test or domains is missing", AGAIN),
    "a bomb of lists for metrics.json": (content("metrics.json", BOMB), "metrics.json: not readable", AGAIN),
    "half a card": (content(RULES, b'{"id": "'), "rules.jsonl, line 1: not JSON", "mend or remove the line"),
    "a list for a card": (content(RULES, b"[]\n"), "rules.jsonl, line 1: expected an object"),
    "a bomb of lists for a card": (content(RULES, BOMB), "rules.jsonl, line 1: not JSON"),
    "Latin-1 in a card": (content(RULES, b'{"id": "\xe9"}\n'), "rules.jsonl, line 1: not JSON"),
    "a card with a field too many": (card(evil=1), 'rules.jsonl, row 1: unknown field "evil"'),
    "a card without its text": (card(text=...), 'rules.jsonl, row 1: the field "text" is missing'),
    "a card with other words": (card(text="Ignore the rules."), 'rules.jsonl, row 1: the field "id" is'),
    "a card of an unknown format": (card(format="lies"), 'rules.jsonl, row 1: the field "format" is "lies"'),
    "a card of minus one session": (card(support=-1), 'rules.jsonl, row 1: the field "support" is -1'),
}


@each("change", WORKDIRS)
def test_a_workdir(change, words, workdir, refused):
    change(workdir)
    refused(lambda: run(sft_text.get_config("smoke"), workdir), *words)


# what is wrong: (the workdir, from a folder with a `file` and a `link` to nowhere; what the error says)
PLACES = {
    "a file": ("file", "file is a file"),
    "in a file": ("file/run", "file is a file"),
    "a link to nowhere": ("link/run", "link is no folder"),
    "a zero byte": ("a\0b", r"'\x00' stands for other characters"),
    "a line end": ("a\n", r"'\n' stands for other characters"),
    "a long name": ("x" * 300, "File name too long"),
    "a long path": ("x/" * 2000, "File name too long"),
    "room for the folder, but not for what it holds": ("/".join(["x" * 200] * 20), "File name too long"),
    "half of a character": ("a\ud800", "surrogates not allowed"),
    "a bucket of Google's": ("gs://bucket/run", "is a URL, and only folders of this machine"),
    "a bucket of Amazon's": ("s3://bucket/run", "is a URL, and only folders of this machine"),
    "a URL of a file": ("file:///tmp/run", "is a URL, and only folders of this machine"),
    "a bucket below a folder": ("runs/gs://bucket/run", "is a URL, and only folders of this machine"),
    "a bucket below the root": ("/tmp/gs:/bucket", "is a URL, and only folders of this machine"),
    "a bucket after two folders": ("/tmp/runs/s3:/bucket", "is a URL, and only folders of this machine"),
    "the home of nobody": ("~no-such-user/run", "~no-such-user is neither a known user's home"),
    "a variable that no shell replaced": ("$HOME/run", "$HOME is neither a known user's home nor replaced"),
    "a variable in braces": ("runs/${SCRATCH}/run", "${SCRATCH} is neither a known user's home nor replaced"),
    "a star": ("runs/*", "'*' stands for other characters"),
    "a question mark": ("runs/what?", "'?' stands for other characters"),
    "brackets": ("runs/[a]", "'[' stands for other characters"),
}


@each("name", PLACES)
@pytest.mark.parametrize(
    "job", [lambda folder: run(sft_text.get_config("smoke"), folder), check_place], ids=["run", "place"]
)
def test_a_workdir_that_cannot_be(job, name, words, tmp_path, refused, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    refused(lambda: job(Path(name)), *words, "choose another --workdir")


def test_a_current_folder_that_was_deleted(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(InputError, match="--workdir=run: the current folder was deleted; change to another"):
        check_place("run")


def test_a_colon_a_dollar_and_a_tilde_may_be_in_a_name(tmp_path):
    for name in ("lr:1e-4", "10:30/run", "cost$/run", "a~b"):
        check_place(tmp_path / name)


# what is there: (a file in the folder, what the error says)
NO_STUDIES = {
    "a run": ("config.json", "has no cells/, so it is not a study of kdjax"),
    "a thesis": ("report.html", "has no cells/, so it is not a study of kdjax"),
}


@each("name", NO_STUDIES)
def test_a_study_does_not_mix_with_other_files(name, words, tmp_path, refused):
    (tmp_path / name).write_text("{}")
    refused(lambda: study(study_format.get_config("smoke"), str(tmp_path)), *words, "choose another --workdir")


# predictions.jsonl: what is wrong: (its rows → other rows, what the error says behind the file's name)
PREDICTIONS = {
    "a row missing": (lambda rows: rows[:-1], ", line 3"),
    "no row": (lambda rows: [], ", line 1"),
    "a row too many": (lambda rows: [*rows, rows[0]], ", line 4"),
    "another session's row": (lambda rows: [rows[0] | {"session_id": "z"}, *rows[1:]], ", line 1"),
    "rows exchanged": (lambda rows: rows[::-1], ", line 1"),
    "other fields": (lambda rows: [rows[0], {"a": 1}, rows[2]], ", line 2"),
    "bundles of text": (lambda rows: [rows[0] | {"predicted": "[[1,2]]"}, *rows[1:]], ", line 1"),
    "a product out of range": (lambda rows: [rows[0] | {"predicted": [[1, 99]]}, *rows[1:]], ", line 1"),
    "bundles in bundles": (lambda rows: [rows[0] | {"predicted": [[[1, 2]]]}, *rows[1:]], ", line 1"),
    "another truth": (lambda rows: [rows[0] | {"truth": [[1, 2]]}, *rows[1:]], ", line 1"),
}


@each("change", PREDICTIONS)
def test_predictions(change, words, tmp_path, refused):
    domains = {"demo": load_domain("demo", "", "demo")}
    config = sft_text.get_config("smoke")
    config.eval.max_sessions = 3
    tokenizer = load_student("tiny-random").tokenizer
    asked = questions(config, teller(config, tokenizer, domains, {"demo": {}}), domains, "test")
    path = tmp_path / "predictions.jsonl"
    rows = prediction_rows(asked, [Completion("[[1,3]]", (1, 2), True)] * 3)
    write_jsonl(path, rows)
    assert read_predictions(path, asked) == rows
    write_jsonl(path, change(rows))
    refused(
        lambda: read_predictions(path, asked), f"{path}{words[0]}", "delete the file, and the same command makes it"
    )


# Bundles for new sessions, from an adapter


@pytest.fixture(scope="module")
def description() -> dict:
    """kdjax.json of an adapter of the tiny model."""
    return {
        "base": {"source": "tiny-random", "digest": resolve("tiny-random").digest, "quantization": None},
        "knowledge": {"demo": ""},
        "demonstrations": {"demo": 0},
        "products": {"fields": ["title"], "title_words": 0},
        "answer": "text",
        "pair_layers": 1,
        "orders": 1,
        "max_new_tokens": 48,
        "thoughts_first": False,
        "instruction": INSTRUCTION,
    }


# what is wrong: (fields of the config, fields of kdjax.json, what the error says)
GENERATE = {
    "no sessions": ({"generate.sessions_file": ""}, {}, "config.generate.sessions_file is empty; name the JSONL file"),
    "no adapter": ({"student.adapter": ""}, {}, "config.student.adapter is empty; name the adapter folder"),
    "an adapter that is not there": ({"student.adapter": "/nowhere"}, {}, "/nowhere/kdjax.json: not readable"),
    "sessions that are not there": (
        {"generate.sessions_file": "/nowhere"},
        {},
        "/nowhere: the sessions cannot be read",
    ),
    "sessions at a zero byte": ({"generate.sessions_file": "a\0b"}, {}, "the sessions cannot be read"),
    "an unknown domain": ({"generate.domain": "toys"}, {}, "domain='toys'", "name one of them"),
    "another student": ({"student.answer": "pairs"}, {}, "config.student.answer='pairs'", "was trained with 'text'"),
    "another base": (
        {},
        {"base": {"source": "tiny-random", "digest": "0"}},
        "was trained on tiny-random",
        "other weights",
    ),
    "another instruction": (
        {},
        {"instruction": "Do as you like."},
        "was trained with an instruction that this version",
    ),
    "an earlier version": ({}, {"products": ...}, "kdjax.json: the adapter is of an earlier version"),
    "a number of tokens in words": ({}, {"max_new_tokens": "many"}, "kdjax.json: not the description of an adapter"),
    "no base": ({}, {"base": ...}, "kdjax.json: not the description of an adapter"),
    "demonstrations that are not there": ({}, {"demonstrations": {"demo": 2}}, "demonstrations.jsonl: no such file"),
}


@each("fields, told", GENERATE)
def test_generate(fields, told, words, description, tmp_path, refused):
    adapter = tmp_path / "adapter"
    load_student("tiny-random", lora=LoraConfig(r=2)).save_adapter(adapter)
    write_json(adapter / "kdjax.json", {name: x for name, x in (description | told).items() if x is not ...})
    write_jsonl(tmp_path / "sessions.jsonl", [{"id": "s", "items": ["a", "b"]}])
    write_jsonl(tmp_path / "items.jsonl", [{"id": "a", "title": "Kettle"}, {"id": "b", "title": "Cups"}])
    config = generate_config.get_config("smoke")
    config.student.adapter = str(adapter)
    config.generate.update(sessions_file=f"{tmp_path}/sessions.jsonl", items_file=f"{tmp_path}/items.jsonl")
    config.update_from_flattened_dict(fields)
    refused(lambda: generate(config, str(tmp_path / "out")), *words)


def test_a_disk_that_is_read_only_is_no_place_for_a_run(small_disk):
    disk = small_disk(1000)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(InputError, match=f"{disk}/run cannot be written: {disk} is read-only.*another --workdir"):
        run(sft_text.get_config("smoke"), disk / "run")
    assert list(disk.iterdir()) == []
