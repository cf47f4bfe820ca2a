"""What model cards say of a base: its name on the hub and its license."""

import pytest
from gguf_helpers import byte_level_tokenizer, hf_weights, write_gguf

from kdjax.sources import DEFAULT_MODEL, ModelFiles, hub_name, license_of, resolve
from kdjax.sources.tiny import write_tiny_model


@pytest.mark.parametrize(
    "head, expected",
    [
        ("---\nlanguage: en\nlicense: mit\n---\n# Model", "mit"),
        ("---\r\nlicense: 'llama3.2'\r\n---\r\n", "llama3.2"),
        ("---\ntags:\n- license: no\n---\n", ""),
        ("# Model\nlicense: mit\n", ""),
        ("---\nlanguage: en\n---\nlicense: mit\n", ""),
        (None, ""),
    ],
)
def test_the_license_of_a_folder_is_in_the_head_of_its_readme(tmp_path, head, expected):
    write_tiny_model(tmp_path)
    if head is not None:
        (tmp_path / "README.md").write_bytes(head.encode())
    files = resolve(str(tmp_path))
    assert license_of(files) == expected and hub_name(files) == ""


@pytest.mark.parametrize("metadata, expected", [({"general.license": "apache-2.0"}, "apache-2.0"), ({}, "")])
def test_the_license_of_a_gguf_file_is_in_its_metadata(tmp_path, metadata, expected):
    tokenizer = byte_level_tokenizer()
    weights = hf_weights(tokenizer.get_vocab_size())
    files = resolve(str(write_gguf(tmp_path / "m.gguf", weights, tokenizer, metadata=metadata)))
    assert license_of(files) == expected and hub_name(files) == ""


def test_names_on_the_hub(tmp_path, monkeypatch):
    assert hub_name(ModelFiles("org/name@v1", tmp_path)) == "org/name"
    assert hub_name(ModelFiles(DEFAULT_MODEL, tmp_path, tmp_path / "m.gguf")) == "HuggingFaceTB/SmolLM2-135M-Instruct"
    monkeypatch.chdir(tmp_path)
    write_tiny_model(tmp_path / "org" / "name")
    assert hub_name(resolve("org/name")) == ""  # a folder of that name


def test_the_tiny_model_is_made_here(tmp_path, monkeypatch):
    monkeypatch.setenv("KDJAX_CACHE", str(tmp_path))
    assert license_of(resolve("tiny-random")) == "apache-2.0"
