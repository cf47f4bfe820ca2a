"""The tiny model's tokenizer (ChatML, one token per byte) and a session."""

import pytest

from kdjax.data import Session
from kdjax.sources import Tokenizer
from kdjax.sources.tiny import write_tiny_model
from kdjax.sources.tokenizer import read_tokenizer


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    write_tiny_model(folder)
    return read_tokenizer(folder)


@pytest.fixture
def session() -> Session:
    """Four products in two bundles, written in an order that is not the canonical one."""
    titles = ("HDMI cable 2 m", "Café mug, 30 cl", "TV 50 inch", "Coffee 500 g")
    return Session("s1", ("a", "b", "c", "d"), titles, ((),) * 4, bundles=((1, 3), (0, 2)), intents=("coffee", "tv"))
