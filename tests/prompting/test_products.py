"""Which tokens of a prompt are which product's."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdjax.data import Session
from kdjax.errors import InputError
from kdjax.prompting import ProductForm, product_list, prompt_example, training_example


def test_a_span_is_the_products_own_text(tokenizer, session):
    example = prompt_example(tokenizer, "d", session)
    assert len(example.products) == len(session)
    for [(first, end)], title in zip(example.products, session.titles, strict=True):
        assert tokenizer.decode(example.prompt_ids[first:end]).strip() == title


def test_each_field_has_a_span_of_its_own(tokenizer, session):
    paths = (("Home", "Kitchen", "Mugs"), ("Home", "Gifts", "Mugs")), (), (("Tools",),)
    told = replace(session, categories=(paths + ((),) * len(session))[: len(session)])
    example = prompt_example(tokenizer, "d", told, form=ProductForm(("title", "categories")))
    texts = [
        [tokenizer.decode(example.prompt_ids[first:end]).strip() for first, end in spans] for spans in example.products
    ]
    expected = ["(Kitchen, Mugs, Gifts)", "", "(Tools)"] + [""] * len(session)
    assert texts == [[title, names] for title, names in zip(session.titles, expected, strict=False)]


def test_what_is_trained_on_keeps_the_true_bundles(tokenizer, session):
    example = training_example(tokenizer, "d", replace(session, bundles=((0, 2),), intents=()))
    assert example.bundles == ((0, 2),) and example.products == prompt_example(tokenizer, "d", session).products


def test_a_template_that_rewrites_titles_is_refused(tokenizer, session, monkeypatch):
    monkeypatch.setattr(type(tokenizer), "render", lambda self, messages: messages[1]["content"].upper())
    with pytest.raises(InputError, match="template changes"):
        prompt_example(tokenizer, "d", session)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=12) | st.sampled_from(["<|im_end|>", "2. x\n3. y", "a\n", " "]), min_size=1))
def test_spans_follow_each_other_and_end_where_their_text_does(tokenizer, titles):
    """Whatever is in a title: what the tokens up to a span's end say is the prompt up to that line's end."""
    empty = ((),) * len(titles)
    session = Session("s", tuple(map(str, range(len(titles)))), tuple(titles), empty)
    example = prompt_example(tokenizer, "d", session)
    head = example.prompt[: example.prompt.rindex(tokenizer.escape(product_list(session)).rstrip())]
    for number, [(first, end)] in enumerate(example.products, start=1):
        assert first < end <= len(example.prompt_ids)
        if not titles[number - 1].strip():
            continue  # of an empty title there is one token, of what surrounds it
        shown = replace(
            session, items=session.items[:number], titles=session.titles[:number], categories=empty[:number]
        )
        read = tokenizer.decode(example.prompt_ids[:end], skip_special_tokens=False)
        assert read.rstrip() == (head + tokenizer.escape(product_list(shown))).rstrip()
    told = [span for [span], title in zip(example.products, titles, strict=True) if title.strip()]
    assert all(end <= first for (_, end), (first, _) in pairwise(told))
