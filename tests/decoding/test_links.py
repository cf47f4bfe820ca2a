from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdjax.data import load_domain
from kdjax.decoding.links import LinkReader, pair_probabilities
from kdjax.prompting import numeral_ids, prompt_example
from kdjax.student import LoraConfig, load_student


@pytest.fixture(scope="module")
def student():
    return load_student("tiny-random", lora=LoraConfig(r=2, lora_alpha=4, target_modules="q_proj"))


@pytest.mark.parametrize("tokens", [300, 4000])  # one prompt in a batch, and many
def test_links_are_the_softmax_of_the_logits_at_the_ends_of_lines(student, tokens):
    sessions = load_domain("demo", "", "demo").splits["test"][::5]
    prompts = [prompt_example(student.tokenizer, "demo", session, "Rules: …") for session in sessions]
    heard = []
    found = LinkReader(student, tokens)(student.adapter, prompts, heard.append)
    assert sum(heard) == len(prompts) == len(found)
    numerals = list(numeral_ids(student.tokenizer))
    for prompt, session, links in zip(prompts, sessions, found, strict=True):
        logits = np.asarray(student.logits(np.array([prompt.prompt_ids]))[0], np.float64)
        expected = np.zeros((len(session), len(session)))
        expected[0, 0] = 1.0
        for i, end in enumerate(prompt.line_ends[1:], start=1):
            row = np.exp(logits[end, numerals[: i + 1]])
            expected[i, : i + 1] = row / row.sum()
        np.testing.assert_allclose(links, expected, atol=1e-5)


def by_enumeration(links):
    """Over all ways to choose: the probability of the choices in which two products end up joined."""
    n = len(links)
    together = np.zeros((n, n))
    for named in product(*(range(i + 1) for i in range(n))):
        bundle = list(range(n))
        for i, number in enumerate(named):
            if number:
                bundle[i] = bundle[number - 1]
        same = np.equal.outer(bundle, bundle)
        together += same * np.prod([links[i, number] for i, number in enumerate(named)])
    return together


@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_pair_probabilities_are_those_of_all_choices_together(n, seed):
    links = np.tril(np.random.default_rng(seed).uniform(size=(n, n)))
    links[0, 0] = 1.0
    links /= links.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(pair_probabilities(links), by_enumeration(links), atol=1e-12)
