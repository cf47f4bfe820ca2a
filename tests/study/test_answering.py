"""Questions that are told in several orders, and answers that are read off links."""

import numpy as np
import pytest

from kdjax.data import load_domain
from kdjax.decoding import Constraint
from kdjax.prompting import ProductForm, parse_answer
from kdjax.student import LoraConfig, load_student
from kdjax.study.answering import Linked, answerer
from kdjax.study.examples import ask, order


@pytest.fixture(scope="module")
def sessions():
    return load_domain("demo", "", "demo").splits["test"][::8]


def test_orders_begin_with_the_sessions_own_and_are_all_orders():
    assert order(0, 4) == (0, 1, 2, 3) and order(1, 4) == (3, 2, 1, 0)
    for number in range(5):
        assert sorted(order(number, 7)) == list(range(7))
        assert order(number, 7) == order(number, 7)  # the same for whoever asks, alone or with others
    assert len({order(number, 7) for number in range(5)}) == 5


def test_a_telling_shows_the_products_in_its_order(sessions):
    student = load_student("tiny-random")
    asked = ask(student.tokenizer, [("demo", s) for s in sessions], {"demo": ""}, ProductForm(), 3)
    assert asked.prompts == asked.tellings[0].prompts and len(asked.tellings) == 3
    for telling in asked.tellings:
        for session, places, prompt in zip(sessions, telling.orders, telling.prompts, strict=True):
            lines = [line for line in prompt.prompt.splitlines() if line[:1].isdigit()]
            titles = [line.split(". ", 1)[1].removesuffix("<|im_end|>") for line in lines]
            assert titles == [session.titles[place] for place in places]


def test_products_are_found_again_whatever_order_they_are_told_in(sessions):
    """A reader who links products whose titles end alike: the order must not matter."""

    def read(adapter, prompts, on_batch):
        for prompt in prompts:
            lines = [line.removesuffix("<|im_end|>") for line in prompt.prompt.splitlines() if line[:1].isdigit()]
            words = [line.split()[-1] for line in lines]
            links = np.zeros((len(words), len(words)))
            for i, word in enumerate(words):
                links[i, words[:i].index(word) + 1 if word in words[:i] else 0] = 1.0
            on_batch(1)
            yield links

    tokenizer, heard = load_student("tiny-random").tokenizer, []
    asked = ask(tokenizer, [("demo", s) for s in sessions], {"demo": ""}, ProductForm(), 4)
    answers = Linked(read)({}, asked, heard.append)
    assert sum(heard) == 4 * len(sessions)
    some = 0
    for session, answer in zip(sessions, answers, strict=True):
        words = [title.split()[-1] for title in session.titles]
        groups = {tuple(i + 1 for i, w in enumerate(words) if w == word) for word in words}
        expected = {group for group in groups if len(group) > 1}
        if expected:  # an answer names something, even where nothing belongs together
            assert set(parse_answer(answer.text, len(session)).bundles) == expected
        some += bool(expected)
        assert answer.token_ids == ()
    assert some > 1


def test_a_student_answers_with_links_that_can_be_read(sessions):
    from configs.base import base

    config = base("x")
    config.eval.update(answer="links", orders=2)
    student = load_student("tiny-random", lora=LoraConfig(r=2, lora_alpha=4, target_modules="q_proj"))
    asked = ask(student.tokenizer, [("demo", s) for s in sessions], {"demo": ""}, ProductForm(), 2)
    answers = answerer(student, config, Constraint("none"))(student.adapter, asked, lambda done: None)
    assert all(parse_answer(a.text, len(s)).valid for a, s in zip(answers, sessions, strict=True))
