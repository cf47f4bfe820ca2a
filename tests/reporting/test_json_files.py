import json
import os
from pathlib import Path

import numpy as np
import pytest

from kdjax.errors import InputError
from kdjax.reporting.files import json_line, open_to_append, read_jsonl, write_json, write_jsonl


def test_json_does_not_depend_on_the_order_of_keys(tmp_path):
    write_json(tmp_path / "deep" / "a.json", {"b": 1, "a": {"d": 2, "c": "Café"}})
    write_json(tmp_path / "b.json", {"a": {"c": "Café", "d": 2}, "b": 1})
    text = (tmp_path / "b.json").read_text(encoding="utf-8")
    assert (tmp_path / "deep" / "a.json").read_text(encoding="utf-8") == text
    assert text == '{\n  "a": {\n    "c": "Café",\n    "d": 2\n  },\n  "b": 1\n}\n'


def test_what_json_cannot_spell():
    values = {
        "nan": float("nan"),
        "inf": np.float32("inf"),
        "array": np.arange(3),
        "path": Path("a/b"),
        7: (np.int64(1), True),
    }
    assert json.loads(json_line(values)) == {
        "nan": None,
        "inf": None,
        "array": [0, 1, 2],
        "path": "a/b",
        "7": [1, True],
    }
    with pytest.raises(TypeError):
        json_line({"a set has no order": {1, 2}})


@pytest.mark.parametrize("write, broken", [(write_json, {"x": object()}), (write_jsonl, [{"x": 1}, {"x": object()}])])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, write, broken):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(TypeError):
        write(path, broken)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.json"]


def test_files_follow_the_umask(tmp_path):
    (tmp_path / "plain").write_text("")
    write_json(tmp_path / "a.json", {})
    assert (tmp_path / "a.json").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_jsonl_keeps_rows_and_the_order_of_their_keys(tmp_path):
    rows = [{"prompt": "a\u2028line\nbreak", "completion": "[[1,2]]"}, {"z": None, "a": [1.5]}]
    write_jsonl(tmp_path / "a.jsonl", iter(rows))
    assert read_jsonl(tmp_path / "a.jsonl") == rows
    assert (tmp_path / "a.jsonl").read_text(encoding="utf-8").count("\n") == 2
    assert list(read_jsonl(tmp_path / "a.jsonl")[1]) == ["z", "a"]


@pytest.mark.parametrize("line, fault", [(b'{"a": 1', "not JSON"), (b"[1]", "list"), (b'{"a": "\xff"}', "not JSON")])
def test_a_bad_line_is_named(tmp_path, line, fault):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n\n' + line + b"\n")
    with pytest.raises(InputError, match=f"a.jsonl, line 3: .*{fault}"):
        read_jsonl(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere.jsonl"):
        read_jsonl(tmp_path / "nowhere.jsonl")


@pytest.mark.parametrize("before, kept", [(b"", 0), (b'{"a": 1}\n', 1), (b'{"a": 1}\n{"a": 2', 1), (b'{"a"', 0)])
def test_appending_cuts_a_torn_last_line(tmp_path, before, kept):
    path = tmp_path / "a.jsonl"
    path.write_bytes(before)
    with open_to_append(path) as file:
        file.write('{"a": 3}\n')
    assert read_jsonl(path) == [{"a": 1}] * kept + [{"a": 3}]
