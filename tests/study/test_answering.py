"""Questions that are told in several orders, and answers by a head that judges pairs."""

from dataclasses import replace

import numpy as np
import pytest

from configs.base import base
from kdjax.data import load_domain
from kdjax.decoding import Constraint, StateReader, best_answer, likely_bundles
from kdjax.prompting import ProductForm, answer_text, parse_answer
from kdjax.student import LoraConfig, fit_pair_head, load_student, pair_logits
from kdjax.study.answering import Judged, answerer, judge
from kdjax.study.telling import Teller, ask, digest, head_fingerprint, order
from kdjax.training import Parallel

FIELDS = (("title",), ("title", "categories"))


@pytest.fixture(scope="module")
def sessions():
    return load_domain("demo", "", "demo").splits["test"][::8]


@pytest.fixture(scope="module")
def student():
    return load_student("tiny-random", lora=LoraConfig(r=2, lora_alpha=4, target_modules="q_proj"))


def asked_of(student, sessions, orders):
    return ask(Teller(student.tokenizer, ProductForm(), {"demo": ""}), [("demo", s) for s in sessions], orders)


def test_orders_begin_with_the_sessions_own_and_are_all_orders():
    assert order(0, 4) == (0, 1, 2, 3) and order(1, 4) == (3, 2, 1, 0)
    for number in range(5):
        assert sorted(order(number, 7)) == list(range(7))
        assert order(number, 7) == order(number, 7)  # the same for whoever asks, alone or with others
    assert len({order(number, 7) for number in range(5)}) == 5


def test_a_telling_shows_the_products_in_its_order(student, sessions):
    asked = asked_of(student, sessions, 3)
    assert asked.prompts == asked.tellings[0].prompts and len(asked.tellings) == 3
    for telling in asked.tellings:
        for session, places, prompt in zip(sessions, telling.orders, telling.prompts, strict=True):
            titles = [student.tokenizer.decode(prompt.prompt_ids[slice(*span)]).strip() for [span] in prompt.products]
            assert titles == [session.titles[place] for place in places]


def test_products_are_found_again_whatever_order_they_are_told_in(student, sessions):
    """States that say the last word of a title, and a head that joins equal ones: the order must not matter."""
    numbers: dict[str, int] = {}

    def read(adapter, prompts, on_batch):
        for prompt in prompts:
            titles = [student.tokenizer.decode(prompt.prompt_ids[slice(*span)]) for [span] in prompt.products]
            on_batch(1)
            yield np.array([[[numbers.setdefault(title.split()[-1], len(numbers))]] for title in titles], np.float32)

    head = {"center": np.zeros((1, 1)), "projection": np.ones((1, 1, 1)), "product": np.zeros((1, 1))}
    head |= {"difference": np.full((1, 1), -60.0), "cosine": np.zeros(1), "bias": np.full((), 30.0)}
    heard, asked = [], asked_of(student, sessions, 4)
    answers = Judged(read)({"adapter": {}, "head": head}, asked, heard.append)
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


def test_judgements_are_symmetric_and_those_of_the_head():
    rng = np.random.default_rng(0)
    states = rng.normal(size=(5, 2, 6)).astype(np.float32)
    head = fit_pair_head([rng.normal(size=(4, 2, 6)) for _ in range(9)], [rng.integers(0, 2, 6) for _ in range(9)])
    judged = judge(head, states)
    np.testing.assert_array_equal(judged, judged.T)
    assert not judged.diagonal().any()
    np.testing.assert_allclose(judged[4, 1], pair_logits(head, states, np.array([1]), np.array([4]))[0], rtol=1e-5)


def test_a_student_answers_by_the_layer_the_head_and_the_adapter_it_is_given(student, sessions):
    config = base("x")
    config.student.update(answer="pairs", pair_layers=1)
    asked = asked_of(student, sessions, 1)
    states = StateReader(student, 1, 4000)(student.adapter, asked.prompts)
    rng = np.random.default_rng(0)
    head = fit_pair_head(states, [rng.integers(0, 2, len(s) * (len(s) - 1) // 2) for s in sessions])
    trained = {"adapter": student.adapter, "head": head}
    answers = answerer(student, Parallel(), config, Constraint("none"))(trained, asked, lambda done: None)
    expected = [answer_text(best_answer(likely_bundles(judge(head, one)))) for one in states]
    assert [answer.text for answer in answers] == expected and len(set(expected)) > 2
    assert all(parse_answer(text, len(s)).valid for text, s in zip(expected, sessions, strict=True))


def test_what_was_read_is_told_apart_by_all_that_a_head_depends_on(student, sessions):
    """Without categories a prompt tells title alone and title with categories by the same tokens, but reads other spans."""
    bare = [replace(session, categories=((),) * len(session)) for session in sessions]
    told = {fields: Teller(student.tokenizer, ProductForm(fields), {"demo": ""}) for fields in FIELDS}
    read = {fields: [one.example("demo", session) for session in bare] for fields, one in told.items()}
    title, both = (read[fields] for fields in FIELDS)
    assert [one.prompt_ids for one in title] == [one.prompt_ids for one in both] and digest(title) != digest(both)
    assert digest(title) == digest(iter(title)) != digest(title[1:])
    assert digest(title) != digest([replace(title[0], bundles=((0, 1),)), *title[1:]])
    config = base("x")
    key = head_fingerprint("a", config, 2, title)
    assert key == head_fingerprint("a", config, 2, title)
    assert key not in (head_fingerprint("b", config, 2, title), head_fingerprint("a", config, 3, title))
    config.student.dtype = "bfloat16"
    assert key != head_fingerprint("a", config, 2, title)
