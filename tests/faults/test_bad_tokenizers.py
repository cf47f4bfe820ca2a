"""Tokenizer files with fields that are broken, or that change the tokens and are not followed: the error names the field."""

import json
import shutil
from pathlib import Path

import pytest
from listed import each

from kdjax.sources import load_tokenizer, resolve
from kdjax.sources.tiny import write_tiny_model


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "model"
    write_tiny_model(folder)
    return folder


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    """A copy to break."""
    return shutil.copytree(whole, tmp_path / "model")


TOKEN = {"content": "<|x|>", "special": True}
# tokenizer_config.json: what is wrong: (fields, what the error says)
SETTINGS = {
    "special tokens read as text": ({"split_special_tokens": True}, "split_special_tokens", "set it to false"),
    "code of its own": ({"auto_map": {"AutoTokenizer": ["evil.X", None]}}, "auto_map", "none is run"),
    "another pre-tokenizer": ({"fix_mistral_regex": True}, "fix_mistral_regex"),
    "another tokenizer file": ({"fast_tokenizer_files": ["tokenizer.4.0.0.json"]}, "fast_tokenizer_files"),
    "decoding that loses spaces": (
        {"clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output": True},
        "clean_up_tokenization_spaces_for_bpe",
    ),
    "arguments without a name": ({"init_inputs": [1]}, "init_inputs"),
    "trust": ({"trust_remote_code": True}, "trust_remote_code", "is not run"),
    "two spellings of special tokens": ({"model_specific_special_tokens": {"a_token": "x"}}, "extra_special_tokens"),
    "a class that is not known": ({"tokenizer_class": "T5TokenizerFast"}, "'T5Tokenizer' is not supported", "Qwen2"),
    "a class in a list": ({"tokenizer_class": ["x"]}, "tokenizer_class \"['x']\" is not supported"),
    "a prefix in words": ({"add_prefix_space": "no"}, "add_prefix_space", "is 'no', and must be true or false"),
    "a legacy of 2": ({"legacy": 2}, "legacy in tokenizer_config.json is 2"),
    "an end that is no token": ({"eos_token": "<|nowhere|>"}, "eos_token '<|nowhere|>' is not a token"),
    "added tokens in a list": ({"added_tokens_decoder": [TOKEN]}, "added_tokens_decoder is", "must be an object"),
    "an added text": ({"added_tokens_decoder": {"259": "<|x|>"}}, "added_tokens_decoder 259 is '<|x|>'"),
    "an added token without a text": ({"added_tokens_decoder": {"259": {}}}, "added_tokens_decoder 259 is {}"),
    "an added token by name": ({"added_tokens_decoder": {"x": TOKEN}}, "'x' in added_tokens_decoder is no token id"),
    "a negative id": ({"added_tokens_decoder": {"-1": TOKEN}}, "'-1' in added_tokens_decoder is no token id"),
    "an id that is not free": ({"added_tokens_decoder": {"5": TOKEN}}, "'<|x|>' has the id 5", "gets 259"),
    "a flag in words": ({"added_tokens_decoder": {"2": TOKEN | {"lstrip": "no"}}}, "lstrip='no', which is no flag"),
    "an unknown flag": ({"added_tokens_decoder": {"2": TOKEN | {"bold": True}}}, "bold=True, which is no flag"),
    "extra tokens as a text": ({"extra_special_tokens": "<|x|>"}, "extra_special_tokens is '<|x|>'"),
    "an extra token of 7": ({"additional_special_tokens": [7]}, "extra_special_tokens is 7"),
    "an extra token with a short name": ({"extra_special_tokens": {"x": "<|x|>"}}, "the name 'x'", "end in _token"),
    "a start in a list": ({"bos_token": ["<s>"]}, "bos_token is ['<s>'], and must be a text"),
}


@each("fields", SETTINGS)
def test_a_field_of_the_settings(fields, words, folder, refused):
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    refused(lambda: load_tokenizer(resolve(str(folder))), str(folder), *words)


# tokenizer.json: what is wrong: (fields of its model, settings, what the error says)
MODEL = {
    "random tokens": ({"dropout": 0.5}, {}, "dropout in tokenizer.json is 0.5", "random"),
    "another model than its class": (
        {"type": "WordLevel", "unk_token": "<|endoftext|>"},
        {"tokenizer_class": "GPT2Tokenizer"},
        "'GPT2Tokenizer' goes with a BPE model, and tokenizer.json has WordLevel",
    ),
    "words that lose spaces": (
        {"type": "WordLevel", "unk_token": "<|endoftext|>"},
        {"clean_up_tokenization_spaces": True},
        "clean_up_tokenization_spaces",
    ),
}


@each("fields, settings", MODEL)
def test_the_model_of_tokenizer_json(fields, settings, words, folder, refused):
    content = json.loads((folder / "tokenizer.json").read_text())
    model = content["model"] | fields
    content["model"] = model if model["type"] == "BPE" else {key: model[key] for key in ("type", "vocab", "unk_token")}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    refused(lambda: load_tokenizer(resolve(str(folder))), str(folder), *words)


# what is wrong: (file, its JSON, what the error says)
FILES = {
    "added tokens in a list": ("added_tokens.json", ["<|x|>"], "added_tokens.json: expected a JSON object"),
    "an added id in words": ("added_tokens.json", {"<|x|>": "last"}, "'last' in added_tokens.json is no token id"),
    "an added id that is not free": ("added_tokens.json", {"<|x|>": 7}, "'<|x|>' has the id 7", "gets 259"),
    "a special token of 7": ("special_tokens_map.json", {"pad_token": {"content": 7}}, "pad_token is 7"),
    "special tokens of 7": ("special_tokens_map.json", {"additional_special_tokens": 7}, "extra_special_tokens is 7"),
}


@each("name, content", FILES)
def test_a_file_beside_it(name, content, words, folder, refused):
    (folder / name).write_text(json.dumps(content))
    refused(lambda: load_tokenizer(resolve(str(folder))), str(folder), *words)


def test_a_template_in_the_folder_of_templates_that_is_no_text(folder, refused):
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "default.jinja").write_bytes(b"\xff\xfe\0")
    refused(lambda: load_tokenizer(resolve(str(folder))), "default.jinja: not UTF-8 text")
