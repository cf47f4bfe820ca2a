"""Tiny models for the student's tests: `tiny-random` without torch, and random Llamas that transformers writes."""

from pathlib import Path

import pytest

from kdjax.sources import resolve
from kdjax.student import Student, load_student


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """The folder of `tiny-random`: 2 layers, 4 heads over 2 key/value heads, 259 tokens."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDJAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        return resolve("tiny-random").folder


@pytest.fixture(scope="session")
def tiny(tiny_folder) -> Student:
    """The tiny student without an adapter; not to be changed."""
    return load_student(str(tiny_folder))


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory) -> Path:
    """A random Llama with grouped-query attention and a tied head, saved by transformers."""
    pytest.importorskip("transformers")
    from torch_models import save_model

    return save_model(tmp_path_factory.mktemp("llama") / "model")
