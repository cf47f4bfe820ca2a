"""What the student is told, epoch by epoch."""

import pytest

from configs.base import base
from configs.sft_text import writes
from kdjax.data import load_domain
from kdjax.knowledge import Card
from kdjax.prompting import parse_answer
from kdjax.sources import load_tokenizer, resolve
from kdjax.study.examples import check_targets, questions, teller, training_set
from kdjax.study.telling import contexts

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
    config.knowledge.formats = ("thoughts",)
    domains, by_format = {"demo": domain}, {"demo": {"thoughts": list(cards)}}
    return training_set(config, teller(config, tokenizer, domains, by_format), domains, by_format)


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


def test_prompts_have_the_knowledge_of_their_domain_or_of_all():
    def rule(domain):
        return Card("rules", domain, f"Rule of {domain}.", ("1",), (), 1, 3)

    cards = {name: {"rules": [rule(name)], "patterns": []} for name in ("books", "tools")}
    assert contexts(cards) == {name: f"Rules:\n1. Rule of {name}." for name in cards}
    assert contexts(cards, all_domains=True) == dict.fromkeys(cards, "Rules:\n1. Rule of books.\n2. Rule of tools.")


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


def shown_in(example):
    """The turns of a prompt: what each user's says, and what is answered."""
    turns = [turn.split("\n", 1) for turn in example.prompt.replace("<|im_end|>", "").split("<|im_start|>")[1:]]
    return [(role, text.strip()) for role, text in turns]


@pytest.mark.parametrize("thoughts_in", ["target", "demonstrations"])
def test_demonstrations_are_other_training_sessions_with_their_answers(tokenizer, domain, thoughts_in):
    config = writes(base("x"))
    config.prompting.demonstrations = 2
    config.knowledge.update(formats=("thoughts",), thoughts_in=thoughts_in)
    train = {session.id: session for session in domain.splits["train"]}
    cards = [Card("thoughts", "demo", f"Thought of {id}.", (id,), (), 1, 7) for id in train]
    domains, by_format = {"demo": domain}, {"demo": {"thoughts": cards}}
    tell = teller(config, tokenizer, domains, by_format)
    examples = training_set(config, tell, domains, by_format)[0] + [*questions(config, tell, domains, "test").prompts]
    for example in examples:
        assert len(example.demonstrations) == 2 and example.session_id not in example.demonstrations
        turns = shown_in(example)
        assert [role for role, _ in turns] == ["system", *["user", "assistant"] * 2, "user", "assistant"]
        for place, id in enumerate(example.demonstrations):
            lines = turns[1 + 2 * place][1].splitlines()
            assert lines[: len(train[id])] == [f"{n}. {title}" for n, title in enumerate(train[id].titles, start=1)]
            assert lines[len(train[id]) :] == ([f"Thought of {id}."] if thoughts_in == "demonstrations" else [])
            assert set(parse_answer(turns[2 + 2 * place][1], len(train[id])).bundles) == {
                tuple(item + 1 for item in bundle) for bundle in train[id].bundles
            }
    assert examples[0].completion.startswith("Thought") == (thoughts_in == "target")


def test_sessions_with_and_without_a_thought_pass_the_check_of_targets(tokenizer, domain):
    """As where the teacher's thoughts are still to come, or it had none about a session."""
    config = writes(base("x"))
    config.knowledge.formats, config.eval.constraint = ("thoughts",), "items"
    card = Card("thoughts", "demo", "Products 1 and 2 fit.", (domain.splits["train"][0].id,), (), 1, 7)
    for cards in ([], [card]):
        [examples, *_] = told(tokenizer, domain, cards)
        assert [example.completion.startswith("Products") for example in examples].count(True) == len(cards)
        check_targets(config, tokenizer, examples)
