"""The sentence encoder that finds neighbours, against transformers in this process, on a tiny BERT with random weights."""

import json

import numpy as np
import pytest
import torch
import transformers
from tiny_encoder import write_tiny_encoder

from kdjax.data import Session
from kdjax.errors import InputError
from kdjax.prompting import Neighbours
from kdjax.prompting.encoder import SentenceEncoder

TITLES = ["green tea pot", "tea", "coffee mug and an espresso cup of coffee"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    write_tiny_encoder(folder, TITLES)
    return folder


def one_by_one(folder, pool):
    """Unit vectors of the titles, each encoded alone, unpadded."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        states = [model(**tokenizer(title, return_tensors="pt")).last_hidden_state[0].numpy() for title in TITLES]
    return np.stack([pool(state) / np.linalg.norm(pool(state)) for state in states])


def test_a_title_is_the_mean_of_its_states_whoever_stands_beside_it(folder):
    vectors = SentenceEncoder(str(folder))(TITLES)
    np.testing.assert_allclose(vectors, one_by_one(folder, lambda state: state.mean(axis=0)), atol=1e-5)


def test_or_the_state_of_its_first_token_where_the_folder_says_so(folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    np.testing.assert_allclose(
        SentenceEncoder(str(tmp_path))(TITLES), one_by_one(folder, lambda state: state[0]), atol=1e-5
    )


def test_what_is_known_takes_no_process(folder, monkeypatch):
    encoder = SentenceEncoder(str(folder))
    first = encoder(TITLES)
    monkeypatch.setattr("kdjax.prompting.encoder.Child", None)
    np.testing.assert_array_equal(encoder(TITLES[::-1]), first[::-1])


def test_neighbours_are_found_by_it(folder):
    sessions = [Session(title, (title,), (title,), ((),)) for title in TITLES]
    find = Neighbours(sessions, str(folder))
    mixed = Session("mixed", ("a", "b"), (TITLES[2], TITLES[1]), ((), ()))
    vectors = one_by_one(folder, lambda state: state.mean(axis=0))
    wanted = vectors @ (vectors[2] + vectors[1])
    assert [near.id for near in find(mixed, 3)] == [TITLES[i] for i in np.argsort(-wanted)]


def test_a_folder_without_a_tokenizer_is_no_encoder(folder, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(InputError, match=r"prompting\.encoder=.*tokenizer\.json"):
        SentenceEncoder(str(tmp_path))


def test_a_broken_encoder_is_an_error_with_its_last_words(folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"prompting\.encoder\) failed; its last words:(?s:.)*safetensors"):
        SentenceEncoder(str(tmp_path))(TITLES)
