"""`tiny-random` is the same model everywhere."""

import json

import numpy as np
from safetensors.numpy import load_file

from kdjax.sources import load_tokenizer, open_weights, read_config, resolve
from kdjax.sources.tiny import write_tiny_model


def test_same_seed_same_bytes_another_seed_other_weights(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_tiny_model(tmp_path / name, seed)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
    first, other = (load_file(tmp_path / name / "model.safetensors") for name in "ac")
    assert not np.array_equal(first["model.embed_tokens.weight"], other["model.embed_tokens.weight"])


def test_it_is_written_once(tiny):
    before = {path.name: path.stat().st_mtime_ns for path in tiny.folder.iterdir()}
    again = resolve("tiny-random")
    assert {path.name: path.stat().st_mtime_ns for path in again.folder.iterdir()} == before
    assert [path.name for path in tiny.folder.parent.iterdir()] == ["tiny-random"], "scratch folders are left"


def test_its_parts_fit_each_other(tiny):
    config, weights, tokenizer = read_config(tiny), open_weights(tiny), load_tokenizer(tiny)
    assert config["vocab_size"] == tokenizer.vocab_size == len(weights["model.embed_tokens.weight"])
    assert tokenizer.eos_id == config["eos_token_id"]
    text = "any text at all: café 🙂\n"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert json.loads((tiny.folder / "config.json").read_text())["model_type"] == "llama"
