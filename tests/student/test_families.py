"""Every family equals transformers: whole rows, padded rows, rows behind a shared prefix, and token by token through the cache."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from torch_models import reference, reference_logits, save_model

from kdjax.errors import InputError
from kdjax.student import load_student
from kdjax.student.cache import Cache
from kdjax.student.families import decoder_config

ROWS, LENGTH, PREFIX, PROMPT = 3, 100, 40, 30  # windows below are shorter than prefix and prompt, so both are cut
TOLERANCE = {"rtol": 0, "atol": 1e-4}
WINDOW = {"sliding_window": 24}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 24}

FAMILIES = {
    "llama-biases": {"attention_bias": True, "mlp_bias": True},
    "mistral": {"model_type": "mistral", "sliding_window": None, "tie_word_embeddings": False},
    "mistral-window": {"model_type": "mistral", **WINDOW},
    "qwen2": {"model_type": "qwen2"},
    "qwen2-window": {"model_type": "qwen2", "use_sliding_window": True, "max_window_layers": 0, **WINDOW},
    "qwen3": {"model_type": "qwen3", "head_dim": 16},
    "qwen3-biases": {"model_type": "qwen3", "head_dim": 8, "attention_bias": True, "tie_word_embeddings": False},
    "qwen2-yarn": {"model_type": "qwen2", "rope_parameters": YARN, "head_dim": 12},
}


@pytest.fixture(scope="module")
def tokens():
    rows = np.random.default_rng(0).integers(3, 259, (ROWS, LENGTH)).astype(np.int32)
    rows[:, :PREFIX] = rows[0, :PREFIX]
    return rows


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request, tokens, tmp_path_factory):
    """(student, transformers' logits of the rows)."""
    folder = save_model(tmp_path_factory.mktemp(request.param) / "model", **FAMILIES[request.param])
    return load_student(str(folder)), reference_logits(reference(folder), tokens)


def test_whole_and_padded_rows(pair, tokens):
    student, expected = pair
    assert np.abs(expected).max() > 1, "logits near zero would be equal by chance"
    np.testing.assert_allclose(student.logits(tokens), expected, **TOLERANCE)
    lengths = np.array([LENGTH, 57, 1])
    logits = np.asarray(student.logits(np.where(np.arange(LENGTH) < lengths[:, None], tokens, 0), lengths))
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(logits[row, :length], expected[row, :length], **TOLERANCE)


def test_rows_behind_a_shared_prefix(pair, tokens):
    student, expected = pair
    decoder = student.merge(student.adapter, student.base)
    hidden = jax.jit(decoder.__call__)(tokens[:, PREFIX:], tokens[0, :PREFIX])
    np.testing.assert_allclose(hidden @ decoder.head.T, expected[:, PREFIX:], **TOLERANCE)


def test_several_examples_in_a_row(pair, tokens):
    """Three cuts of other rows, one after the other behind the prefix: each as if it stood there alone."""
    student, expected = pair
    decoder = student.merge(student.adapter, student.base)
    sizes = (30, 9, 17)
    cuts = [tokens[row, PREFIX : PREFIX + size] for row, size in enumerate(sizes)]
    starts = np.repeat(np.cumsum([0, *sizes[:-1]]), sizes)
    packed = np.concatenate(cuts)[None]
    hidden = jax.jit(lambda packed, prefix, starts: decoder(packed, prefix, starts=starts))(
        packed, tokens[0, :PREFIX], starts[None]
    )
    logits = np.asarray(hidden @ decoder.head.T)[0]
    for row, (size, start) in enumerate(zip(sizes, np.unique(starts), strict=True)):
        np.testing.assert_allclose(
            logits[start : start + size], expected[row, PREFIX : PREFIX + size], err_msg=f"{row}", **TOLERANCE
        )


def test_token_by_token_through_the_cache(pair, tokens):
    """Prompts of three lengths behind the prefix; each row goes on right behind its own last token, by one and by two in turn."""
    student, expected = pair
    decoder = student.merge(student.adapter, student.base)
    lengths, steps, everyone = np.array([PROMPT, 11, 1]), 28, np.arange(ROWS)
    prompts = tokens[:, PREFIX : PREFIX + PROMPT]
    first = everyone * PROMPT
    prefill = jax.jit(decoder.prefill)
    prefix = jax.jit(decoder.read_prefix)(jnp.asarray(tokens[0, :PREFIX]))
    last, read = prefill(jnp.asarray(prompts), jnp.asarray(first + lengths - 1), prefix)
    cache = replace(Cache.empty(student.config, ROWS, PROMPT, steps + 1, jnp.float32), prefix=prefix)
    cache = cache.admit(read, jnp.asarray(first), jnp.asarray(lengths), jnp.asarray(everyone))
    decode = jax.jit(decoder.decode)
    position, width = PREFIX + lengths, 1
    while (position < PREFIX + lengths + steps).all():
        logits = last @ decoder.head.T
        np.testing.assert_allclose(logits, expected[everyone, position - 1], err_msg=f"{position}", **TOLERANCE)
        new = tokens[everyone[:, None], position[:, None] + np.arange(width)]
        last, fresh = decode(jnp.asarray(new), jnp.full(ROWS, width), cache)
        cache = cache.extend(fresh, jnp.full(ROWS, width))
        position, width = position + width, 3 - width


def test_the_window_and_the_biases_change_these_logits(tokens, tmp_path):
    """Else the cases above would prove nothing about them."""
    whole, cut = (
        reference_logits(reference(save_model(tmp_path / name, **FAMILIES[name])), tokens)
        for name in ("mistral", "mistral-window")
    )
    assert np.abs(whole - cut)[:, WINDOW["sliding_window"] :].max() > 0.1


ROPES = {
    "linear": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
    "yarn": YARN,
    "yarn-betas": YARN | {"beta_fast": 4.0, "beta_slow": 0.5, "attention_factor": 1.3},
    "yarn-mscale": YARN | {"mscale": 0.7, "mscale_all_dim": 0.3, "truncate": False},
    "yarn-no-length": {"rope_type": "yarn", "rope_theta": 500.0, "factor": 2.0},
}


@pytest.mark.parametrize("older_layout", [False, True], ids=["rope_parameters", "rope_scaling"])
@pytest.mark.parametrize("rope", ROPES)
def test_rope_scaling(tokens, tmp_path, rope, older_layout):
    folder = save_model(tmp_path / "model", rope_parameters=dict(ROPES[rope]), head_dim=16, max_position_embeddings=48)
    if older_layout:
        config = json.loads((folder / "config.json").read_text())
        settings = config.pop("rope_parameters")
        config |= {"rope_theta": settings.pop("rope_theta"), "rope_scaling": settings}
        (folder / "config.json").write_text(json.dumps(config))
    expected = reference_logits(reference(folder), tokens)
    np.testing.assert_allclose(load_student(str(folder)).logits(tokens), expected, **TOLERANCE)
    plain = save_model(tmp_path / "plain", head_dim=16, max_position_embeddings=48)
    assert np.abs(expected - reference_logits(reference(plain), tokens)).max() > 0.1


CONFIG = {
    "vocab_size": 9,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 64,
}
SLIDING = {"use_sliding_window": True, "sliding_window": 24}


@pytest.mark.parametrize(
    ("architecture", "changes", "window"),
    [
        ("Mistral", {}, 4096),  # transformers' default where the field is absent
        ("Mistral", {"sliding_window": None}, None),
        ("Qwen2", {"sliding_window": 24}, None),  # use_sliding_window is false by default
        ("Qwen2", SLIDING, None),  # the first 28 layers see everything, by default
        ("Qwen3", SLIDING | {"max_window_layers": 0}, 24),
        ("Qwen3", SLIDING | {"layer_types": ["full_attention"] * 4, "max_window_layers": 0}, None),
        ("Llama", {"sliding_window": None}, None),
        ("Mistral", {"sliding_window": 24, "layer_types": ["sliding_attention"] * 4}, 24),
        ("Mistral", {"sliding_window": 24, "layer_types": ["full_attention"] * 4}, None),
        ("Mistral", {"sliding_window": 24, "max_window_layers": 2}, 24),  # a field of Qwen's
    ],
)
def test_whether_a_window_is_meant(architecture, changes, window):
    config = CONFIG | {"architectures": [f"{architecture}ForCausalLM"]} | changes
    assert decoder_config(config, "here").sliding_window == window


@pytest.mark.parametrize(
    ("architecture", "changes", "message"),
    [
        ("Qwen2", SLIDING | {"max_window_layers": 2}, "sliding_window=24 in some layers only"),
        ("Qwen3", SLIDING | {"layer_types": ["full_attention", "sliding_attention"] * 2}, "in some layers only"),
        ("Mistral", {"attention_bias": True}, "attention_bias=True is not supported for MistralForCausalLM"),
        ("Qwen2", {"mlp_bias": True}, "mlp_bias=True is not supported for Qwen2ForCausalLM"),
        ("Llama", {"rope_parameters": {"rope_type": "longrope"}}, "rope type 'longrope' is not supported"),
        ("Llama", {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ("Llama", {"rope_scaling": {"type": "linear"}}, "does not say 'factor'"),
    ],
)
def test_what_is_refused(architecture, changes, message):
    config = CONFIG | {"architectures": [f"{architecture}ForCausalLM"]} | changes
    with pytest.raises(InputError, match=f"here: .*{message}"):
        decoder_config(config, "here")
