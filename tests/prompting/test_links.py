"""Where products' lines end in the tokens, and which links are true there."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdjax.data import Session
from kdjax.errors import InputError
from kdjax.prompting import NUMERALS, link_targets, numeral_ids, product_list, prompt_example, training_example


def linked(tokenizer, session, bundles):
    """Product (1-based) → {numeral: weight} of the links that are trained on."""
    example = training_example(tokenizer, "d", replace(session, bundles=bundles, intents=()), link_weight=1.0)
    numerals = dict(zip(numeral_ids(tokenizer), NUMERALS, strict=True))
    found = {}
    for target in example.links:
        product = example.line_ends.index(target.position) + 1
        found.setdefault(product, {})[numerals[target.token_id]] = target.weight
    return found


@pytest.mark.parametrize(
    "bundles, links",
    [
        (((0, 2), (1, 3)), {2: {"0": 1.0}, 3: {"1": 1.0}, 4: {"2": 1.0}}),
        (((0, 1, 3),), {2: {"1": 1.0}, 3: {"0": 1.0}, 4: {"1": 0.5, "2": 0.5}}),
        (((0, 1), (1, 2)), {2: {"1": 1.0}, 3: {"2": 1.0}, 4: {"0": 1.0}}),  # bundles may overlap
        ((), {2: {"0": 1.0}, 3: {"0": 1.0}, 4: {"0": 1.0}}),
    ],
)
def test_a_link_goes_to_each_earlier_product_of_a_shared_bundle(tokenizer, session, bundles, links):
    assert linked(tokenizer, session, bundles) == links


def test_without_a_weight_no_link_is_trained_on(tokenizer, session):
    example = training_example(tokenizer, "d", session)
    assert example.links == () and len(example.line_ends) == 4
    assert example.targets[0].position == len(example.prompt_ids) - 1


def test_links_come_before_the_completion(tokenizer, session):
    example = training_example(tokenizer, "d", session, link_weight=2.0)
    plain = training_example(tokenizer, "d", session)
    assert example.targets == example.links + plain.targets
    assert {target.weight for target in example.links} == {2.0} and {target.weight for target in plain.targets} == {1.0}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=12) | st.sampled_from(["<|im_end|>", "2. x\n3. y", "a\n"]), min_size=1))
def test_a_line_ends_where_its_title_does(tokenizer, titles):
    """Whatever is in a title: what the tokens up to there say is the prompt up to that line's end."""
    empty = ((),) * len(titles)
    session = Session("s", tuple(map(str, range(len(titles)))), tuple(titles), empty)
    example = prompt_example(tokenizer, "d", session)
    head = example.prompt[: example.prompt.rindex(tokenizer.escape(product_list(session)).rstrip())]
    for number, end in enumerate(example.line_ends, start=1):
        shown = replace(
            session, items=session.items[:number], titles=session.titles[:number], categories=empty[:number]
        )
        read = tokenizer.decode(example.prompt_ids[: end + 1], skip_special_tokens=False)
        assert read.rstrip() == (head + tokenizer.escape(product_list(shown))).rstrip()


def test_too_many_products_for_numerals_are_refused(tokenizer):
    n = len(NUMERALS) + 1
    session = Session("big", tuple(map(str, range(n))), ("t",) * n, ((),) * n)
    with pytest.raises(InputError, match="big has 37 products; links have numerals for 36"):
        link_targets(session, range(n), numeral_ids(tokenizer))
