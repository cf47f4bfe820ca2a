"""A tiny random Llama with a byte-level tokenizer, saved as a Hugging Face folder; a teacher over HTTP."""

import json
import os
from pathlib import Path

import pytest
from http_calls import KEY
from http_stand_in import Server

from kdjax.sources import load_tokenizer, resolve
from kdjax.teacher import http_teacher, open_teacher

# For the teacher's process. Two OpenMP threads on a busy machine are slower than one, and torch is imported once.
os.environ["OMP_NUM_THREADS"] = "1"

TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]


def save_tokenizer(folder: Path) -> int:
    """Write a tokenizer with one token per byte and five special ones; return the vocabulary's size."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    vocab = {token: i for i, token in enumerate([*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "chat_template": TEMPLATE,
        "eos_token": "<|end|>",
        "pad_token": "<|pad|>",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return len(vocab)


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory) -> Path:
    """A folder with that tokenizer alone."""
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """The folder of a random two-layer Llama whose context holds 64 tokens."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("tiny") / "model"
    folder.mkdir()
    vocab_size = save_tokenizer(folder)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,  # far from uniform, so that a greedy choice is no matter of rounding
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_folder):
    """The tiny model's tokenizer."""
    return load_tokenizer(resolve(str(tiny_folder)))


@pytest.fixture
def server():
    """An endpoint on this machine."""
    with Server() as server:
        yield server


@pytest.fixture
def opened(server, tmp_path, monkeypatch):
    """Open a teacher that asks `server` and does not wait long; what it says goes to `opened.said`."""
    monkeypatch.setattr(http_teacher, "FIRST_WAIT", 0.001)
    monkeypatch.setenv("TEACHER_KEY", KEY)
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def opened(**options):
        settings = {"url": server.url, "key_variable": "TEACHER_KEY", "batch_size": 3, "log": opened.said.append}
        return open_teacher("http", "tiny", tmp_path / "cache", **settings | options)

    opened.said = []
    return opened
