"""What the student is told, epoch by epoch."""

import pytest

from configs.base import base
from configs.sft_text import writes
from kdjax.data import load_domain
from kdjax.knowledge import Card
from kdjax.prompting import parse_answer
from kdjax.sources import load_tokenizer, resolve
from kdjax.study.examples import training_set

EPOCHS = 3


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(resolve("tiny-random"))


@pytest.fixture(scope="module")
def domain():
    return load_domain("demo", "", "demo")


def told(tokenizer, domain, cards=(), **fields):
    config = writes(base("x"))
    config.train.update({"epochs": EPOCHS, "shuffle_products": True} | fields)
    return training_set(config, tokenizer, {"demo": domain}, {"demo": {"thoughts": list(cards)}})


def bundles_of_titles(example, session):
    """The bundles of an example by title, read from its own text."""
    lines = [line for line in example.prompt.splitlines() if line[:1].isdigit()]
    titles = [line.split(". ", 1)[1].removesuffix("<|im_end|>") for line in lines]
    answer = parse_answer(example.completion, len(session))
    return titles, {frozenset(titles[number - 1] for number in bundle) for bundle in answer.bundles}


def test_each_epoch_tells_the_same_sessions_in_another_order(tokenizer, domain):
    epochs, again = told(tokenizer, domain), told(tokenizer, domain)
    assert epochs == again and len(epochs) == EPOCHS
    sessions, moved = domain.splits["train"], 0
    for examples in epochs:
        assert [example.session_id for example in examples] == [session.id for session in sessions]
        for example, session in zip(examples, sessions, strict=True):
            titles, bundles = bundles_of_titles(example, session)
            moved += titles != list(session.titles)
            assert sorted(titles) == sorted(session.titles)
            assert bundles == {frozenset(session.titles[i] for i in bundle) for bundle in session.bundles}
    assert moved > 0.7 * EPOCHS * len(sessions)
    assert epochs[0] != epochs[1]


def test_without_shuffling_all_epochs_are_the_same(tokenizer, domain):
    epochs = told(tokenizer, domain, shuffle_products=False)
    assert len(epochs) == EPOCHS and all(examples is epochs[0] for examples in epochs)
    for example, session in zip(epochs[0], domain.splits["train"], strict=True):
        assert bundles_of_titles(example, session)[0] == list(session.titles)


def test_a_session_with_a_thought_keeps_its_order(tokenizer, domain):
    """The thought speaks of products by number."""
    session = domain.splits["train"][-1]
    card = Card("thoughts", "demo", "Products 1 and 2 fit.", (session.id,), (), 1, 7)
    for examples in told(tokenizer, domain, [card]):
        assert examples[-1].completion.startswith("Products 1 and 2 fit.")
        lines = [line for line in examples[-1].prompt.splitlines() if line[:1].isdigit()]
        assert lines[0] == f"1. {session.titles[0]}"
