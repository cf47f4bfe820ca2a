"""Sessions whose answers could be trained and never generated: the error names the session, before anything is asked or trained."""

import json

import pytest
from listed import each

from configs.base import base
from kdjax.data import Session
from kdjax.prompting import training_example
from kdjax.sources.tiny import write_tiny_model
from kdjax.sources.tokenizer import read_tokenizer
from kdjax.study.examples import check_training

PAIRS = tuple((first, second) for first in range(5) for second in range(first + 1, 5))
UNKNOWN = "token 1, '<|endoftext|>'"  # what a vocabulary has for characters that it lacks

# what is wrong: (constraint, bundles, thought, characters that the vocabulary lacks, what the error says)
TARGETS = {
    "more bundles than an answer has": ("items", PAIRS[:8], "", "", "it names 8 bundles, and an answer at most 7"),
    "so many lists": ("json", PAIRS[:9], "", "", "eval.constraint='json' forbids", "it names 9 bundles"),
    "so many after a thought": ("items", PAIRS[:8], "They fit.", "", "it names 8 bundles"),
    "no bundle": ("items", (), "", "", "'[]<|im_end|>': token 2, ']', may not come there"),
    "no list": ("json", (), "", "", "token 2, ']', may not come there"),
    "a product twice": ("items", ((0, 0),), "", "", "'[[1,1]]<|im_end|>': token 5, '1', may not come there"),
    "a bundle of one": ("items", ((2,),), "", "", "token 4, ']', may not come there"),
    "a product that is not there": ("items", ((1, 6),), "", "", "token 5, '7', may not come there"),
    "the answer within its thought": ("items", PAIRS[:1], "Bundles: [[1,2]], for", "", "may not come there"),
    "a marker within its thought": ("json", PAIRS[:1], "Bundles: two.", "", "token 10, 't', may not come there"),
    "brackets that the vocabulary lacks": ("items", PAIRS[:1], "", "[", UNKNOWN),
    "letters that the vocabulary lacks": ("json", PAIRS[:1], "They fit.", "T", UNKNOWN),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("targets")
    write_tiny_model(folder)
    return json.loads((folder / "tokenizer.json").read_text()), folder


@each("mode, bundles, thought, lacks", TARGETS)
def test_a_target_that_cannot_be_generated(mode, bundles, thought, lacks, words, model, refused):
    content, folder = model
    vocabulary = {token: i for token, i in content["model"]["vocab"].items() if token not in set(lacks)}
    changed = content | {"model": content["model"] | {"vocab": vocabulary, "unk_token": "<|endoftext|>"}}
    (folder / "tokenizer.json").write_text(json.dumps(changed))
    tokenizer = read_tokenizer(folder)
    session = Session("s7", tuple("abcde"), tuple("vwxyz"), ((),) * 5, bundles, ("",) * len(bundles))
    config = base("x")
    config.student.answer, config.eval.constraint = "text", mode
    config.knowledge.formats = ("thoughts",) if thought else ()
    told = [training_example(tokenizer, "shop", session, thought=thought)]
    refused(lambda: check_training(config, tokenizer, told, 4096), "session shop/s7", *words)
    for fields in ({"eval.constraint": "none"}, {"train.max_steps": 0}, {"student.answer": "pairs"}):
        free = config.copy_and_resolve_references()
        free.update_from_flattened_dict(fields)
        check_training(free, tokenizer, told, 4096)
