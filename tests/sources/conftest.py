"""A cache of the tests' own, and the tiny random model in it."""

import pytest

from kdjax.sources import ModelFiles, resolve


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty $KDJAX_CACHE."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("KDJAX_CACHE", str(folder))
    return folder


@pytest.fixture
def tiny(cache) -> ModelFiles:
    """The files of `tiny-random`, fresh for one test to change."""
    return resolve("tiny-random")
