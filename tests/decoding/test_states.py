"""Products' states, read from many prompts at once, are those of each prompt by itself."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.data import load_domain
from kdjax.decoding import StateReader
from kdjax.prompting import ProductForm, prompt_example
from kdjax.student import LoraConfig, load_student
from kdjax.training.clock import compile_seconds


@pytest.mark.parametrize("tokens", [300, 4000])  # one prompt in a batch, and many
@pytest.mark.parametrize("layers", [1, 2])
def test_a_state_is_the_mean_over_the_fields_tokens(tokens, layers):
    student = load_student("tiny-random", lora=LoraConfig(r=2, lora_alpha=4, target_modules="q_proj"))
    sessions = load_domain("demo", "", "demo").splits["test"][::5]
    sessions[0] = replace(sessions[0], categories=((),) * len(sessions[0]))  # nothing to tell but titles
    form = ProductForm(("title", "category"))
    prompts = [prompt_example(student.tokenizer, "demo", session, "Rules: …", form) for session in sessions]
    heard = []
    read, before = StateReader(student, layers, tokens), compile_seconds()
    found = read(student.adapter, prompts, heard.append)
    once = compile_seconds()
    read(student.adapter, prompts)
    assert before < once == compile_seconds()
    assert sum(heard) == len(prompts) == len(found)
    decoder = student.merge(student.adapter, student.base)
    for prompt, states in zip(prompts, found, strict=True):
        hidden = np.asarray(decoder.hidden(layers, jnp.asarray([prompt.prompt_ids]))[0])
        expected = [
            [hidden[first:end].mean(axis=0) if end > first else np.zeros(hidden.shape[1]) for first, end in fields]
            for fields in prompt.products
        ]
        np.testing.assert_allclose(states, expected, rtol=1e-3, atol=1e-5)


def test_a_session_alone_is_read_as_among_others():
    """A single prompt shares all of itself with itself: its products are still read."""
    student = load_student("tiny-random")
    sessions = load_domain("demo", "", "demo").splits["test"][:3]
    prompts = [prompt_example(student.tokenizer, "demo", session) for session in sessions]
    read = StateReader(student, 2, 4000)
    together = read(student.adapter, prompts)
    for prompt, states in zip(prompts, together, strict=True):
        np.testing.assert_allclose(read(student.adapter, [prompt])[0], states, rtol=1e-3, atol=1e-5)


def test_all_layers_and_the_norm_are_the_decoders_output():
    student = load_student("tiny-random")
    decoder, tokens = student.merge(student.adapter, student.base), jnp.asarray([[5, 9, 17, 4]])
    np.testing.assert_allclose(decoder.norm(decoder.hidden(None, tokens)), decoder(tokens), rtol=1e-5)
    np.testing.assert_allclose(decoder.hidden(2, tokens), decoder.hidden(None, tokens), rtol=1e-5)
