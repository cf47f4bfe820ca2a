"""Our LoRA layer by PEFT's meanings: configuration, initial values, scale, and dropout keyed by example."""

import math
from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import on
from students import trained_student

from kdjax.errors import InputError
from kdjax.student import LoraConfig, load_student, lora
from kdjax.student.dropout import Dropout
from kdjax.student.lora import added_first
from kdjax.student.lora_config import LINEAR_NAMES, Plan
from kdjax.student.weights_in import flat_items

TOKENS = np.random.default_rng(0).integers(3, 259, (2, 24)).astype(np.int32)
INPUTS = {"down_proj": 96}  # of the tiny model; all other linear maps read the hidden size, 48


def modules_of(adapter: dict) -> set[str]:
    return {path[-2] for path, _ in flat_items(adapter)}


# Configuration


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"r": 0}, r"lora\.r=0: the rank must be a whole number, at least 1"),
        ({"rank_pattern": {"q_proj": "x"}}, r"rank_pattern\['q_proj'\]='x': the rank must be a whole number"),
        ({"alpha_pattern": {"q_proj": "x"}}, r"alpha of 'q_proj' must be a finite number"),
        ({"r": -4}, r"lora\.r=-4"),
        ({"lora_dropout": 1.0}, r"lora\.lora_dropout=1\.0: must be in \[0, 1\)"),
        ({"lora_dropout": -0.1}, r"lora\.lora_dropout=-0\.1"),
        ({"target_modules": "(q_proj"}, r"target_modules: '\(q_proj' is not a regular expression"),
        ({"rank_pattern": {"q_proj": 0}}, r"rank_pattern\['q_proj'\]=0: the rank must be a whole number, at least 1"),
        (
            {"target_modules": ".*q_proj", "layers_to_transform": 0},
            "layers_to_transform: not with a regular expression",
        ),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(InputError, match=message):
        LoraConfig(**settings)


def test_scales_by_hand():
    for settings, scale in (
        ({}, 1.0),  # PEFT's defaults: r 8, alpha 8
        ({"r": 16, "lora_alpha": 32}, 2.0),
        ({"r": 16, "lora_alpha": 32, "use_rslora": True}, 8.0),
    ):
        plans = LoraConfig(**settings).plans(2)
        assert plans.keys() == set(LINEAR_NAMES)
        assert all(plan.scales == (scale, scale) for plan in plans.values())


def test_patterns_by_hand():
    plans = LoraConfig(
        r=4,
        lora_alpha=8,
        exclude_modules=["layers.2.self_attn.v_proj"],
        rank_pattern={r"1\.self_attn\.q_proj": 16, "q_proj": 2},  # the first that fits counts
        alpha_pattern={r"layers\.[01]\.mlp\..*": 4},
        layers_to_transform=[1, 2],
    ).plans(3)
    assert plans["q_proj"] == Plan((0, 16, 2), (0.0, 0.5, 4.0))
    assert plans["v_proj"] == Plan((0, 4, 0), (0.0, 2.0, 0.0))
    assert plans["up_proj"] == Plan((0, 4, 4), (0.0, 1.0, 2.0))
    assert plans["q_proj"].rank == 16


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"target_modules": ["layers.2.mlp.up_proj"]},
            r"target_modules: 'layers\.2\.mlp\.up_proj' fits no linear layer",
        ),
        ({"target_modules": ".*lm_head"}, r"target_modules: '\.\*lm_head' fits no linear layer"),
        ({"exclude_modules": ["self_attn.up_proj"]}, r"exclude_modules: 'self_attn\.up_proj' fits no linear layer"),
        ({"rank_pattern": {"query": 2}}, r"rank_pattern: 'query' fits no linear layer"),
        ({"alpha_pattern": {"query": 2}}, r"alpha_pattern: 'query' fits no linear layer"),
        ({"layers_to_transform": [2]}, "there is no layer 2, the model has 2"),
        ({"target_modules": "q_proj", "exclude_modules": "q_proj"}, "leave no linear layer"),
    ],
)
def test_what_fits_nothing_is_named(tiny_folder, settings, message):
    with pytest.raises(InputError, match=rf"lora\..*{message}"):
        load_student(str(tiny_folder), lora=LoraConfig(**settings))


@pytest.mark.parametrize(
    ("target_modules", "expected"),
    [
        ("all-linear", set(LINEAR_NAMES)),
        ("q_proj", {"q_proj"}),
        (["v_proj", "q_proj"], {"q_proj", "v_proj"}),
        (("down_proj",), {"down_proj"}),
    ],
)
def test_target_modules_alone_are_adapted(tiny_folder, target_modules, expected):
    student = load_student(str(tiny_folder), lora=LoraConfig(r=2, target_modules=target_modules))
    assert modules_of(student.adapter) == expected


@pytest.mark.parametrize(
    "text", ["['q_proj','v_proj']", "[q_proj,v_proj]", '["q_proj", "v_proj"]', "('q_proj', 'v_proj')", "q_proj, v_proj"]
)
def test_a_list_of_names_in_one_string(text):
    """As PEFT's documentation has it, on a command line; a shell takes the quotes away."""
    lora = LoraConfig(target_modules=text, exclude_modules=text)
    assert lora.target_modules == lora.exclude_modules == ("q_proj", "v_proj")
    assert LoraConfig(target_modules="['q_proj']").target_modules == ("q_proj",)


@pytest.mark.parametrize(
    "text", [r".*layers\.[0,1].*\.(q|v)_proj", "(model.layers.0.mlp.up_proj)", "model.layers.0.mlp.up_proj"]
)
def test_a_regular_expression_stays_one(text):
    lora = LoraConfig(target_modules=text)
    assert lora.target_modules == text and lora.is_regex("target_modules")
    assert any(plan.rank for plan in lora.plans(2).values())


@pytest.mark.parametrize("text", [r".*\.q_pro", r"odel\.layers\.0\.self_attn\.q_proj", r".*\.q_proj\.weight"])
def test_a_regular_expression_must_match_the_whole_path(text):
    with pytest.raises(InputError, match="leave no linear layer"):
        LoraConfig(target_modules=text).plans(2)


# Initial values


def test_init_is_pefts(tiny_folder):
    """A uniform in ±1/√in_features (kaiming_uniform with a=√5), B zero, both float32, another draw for each layer and map."""
    student = load_student(str(tiny_folder), lora=LoraConfig(r=32), dtype="bfloat16")
    draws = []
    for path, leaf in flat_items(student.adapter):
        assert leaf.dtype == jnp.float32
        if path[-1] == "lora_B":
            assert not np.asarray(leaf).any()
            continue
        in_features = INPUTS.get(path[-2], 48)
        assert leaf.shape == (2, 32, in_features)
        bound = in_features**-0.5
        for layer in np.asarray(leaf):
            assert np.abs(layer).max() <= bound
            assert np.abs(layer).max() > 0.99 * bound
            assert abs(layer.mean()) < 5 * bound / math.sqrt(3 * layer.size)
            assert layer.std() == pytest.approx(bound / math.sqrt(3), rel=0.05)
            draws.append(layer.tobytes())
    assert len(set(draws)) == len(draws) == 2 * 7


def test_same_seed_same_adapter(tiny_folder):
    first, again, other = (
        load_student(str(tiny_folder), lora=LoraConfig(r=2, target_modules="q_proj"), seed=seed).adapter
        for seed in (0, 0, 1)
    )
    jax.tree.map(np.testing.assert_array_equal, first, again)
    a = [tree["layers"]["self_attn"]["q_proj"]["lora_A"] for tree in (first, other)]
    assert not np.array_equal(*a)


def test_a_fresh_adapter_leaves_the_logits_bit_for_bit(tiny, tiny_folder):
    student = load_student(str(tiny_folder), lora=LoraConfig(r=4, lora_alpha=64, rank_pattern={"k_proj": 2}))
    np.testing.assert_array_equal(student.logits(TOKENS), tiny.logits(TOKENS))


def test_a_fresh_dora_adapter_leaves_the_logits_but_for_rounding(tiny, tiny_folder):
    """Its rows are divided by their own length and multiplied by it again."""
    student = load_student(str(tiny_folder), lora=LoraConfig(r=4, use_dora=True, layers_to_transform=[1]))
    np.testing.assert_allclose(student.logits(TOKENS), tiny.logits(TOKENS), rtol=0, atol=1e-5)


def test_rslora_is_a_larger_alpha(tiny_folder):
    rslora = trained_student(tiny_folder, LoraConfig(r=4, lora_alpha=8, use_rslora=True))
    plain = trained_student(tiny_folder, LoraConfig(r=4, lora_alpha=16))
    np.testing.assert_array_equal(rslora.logits(TOKENS), plain.logits(TOKENS))
    smaller = trained_student(tiny_folder, LoraConfig(r=4, lora_alpha=8))
    assert np.abs(np.asarray(smaller.logits(TOKENS)) - np.asarray(plain.logits(TOKENS))).max() > 0.01


# Dropout

KEY = jax.random.key(0)
RATE, PREFIX, LENGTH, FEATURES = 0.25, 5, 16, 64


def masks(ids, prefix=PREFIX, length=LENGTH, key=KEY, layer=0, place=0):
    """(prefix's mask [prefix, features], examples' masks [batch, length, features]) of one linear map."""
    kept = np.asarray(_kept(jnp.array(ids), key, layer, place, prefix, length))
    return kept[:prefix], kept[prefix:].reshape(len(ids), length, FEATURES)


@jax.jit(static_argnums=(4, 5))
def _kept(ids, key, layer, place, prefix, length):
    whole = jnp.tile(ids[:, None], (1, length))
    dropout = Dropout.of_step(RATE, key, whole, jnp.zeros_like(whole), prefix).at(layer).at(place)
    return dropout(jnp.ones((prefix + len(ids) * length, FEATURES)))


def test_an_examples_mask_depends_on_the_example_alone():
    shared, (first, second, third) = masks([7, 0, 3])
    for ids, example, mask in (
        ([3, 9, 1], 0, third),
        ([5, 3, 0], 2, second),
        ([1, 2, 7], 2, first),
        ([7, -1, -1], 0, first),
    ):
        other_shared, others = masks(ids)
        np.testing.assert_array_equal(others[example], mask)
        np.testing.assert_array_equal(other_shared, shared)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, third)


def test_where_in_a_row_an_example_begins_does_not_change_its_mask():
    _, (alone,) = masks([7])
    ids, starts = jnp.asarray([[3] * 4 + [7] * 12]), jnp.asarray([[0] * 4 + [4] * 12])
    dropout = Dropout.of_step(RATE, KEY, ids, starts, PREFIX).at(0).at(0)
    packed = np.asarray(dropout(jnp.ones((PREFIX + 16, FEATURES))))[PREFIX:]
    np.testing.assert_array_equal(packed[4:], alone[:12])


def test_padding_does_not_change_a_mask():
    _, short = masks([7, 0, 3])
    _, long = masks([7, 0, 3], length=2 * LENGTH)
    np.testing.assert_array_equal(long[:, :LENGTH], short)


def test_the_prefix_has_a_mask_of_its_own_that_all_examples_share():
    """The prefix is computed once for all: a difference from training without a shared prefix, and the only one."""
    shared, examples = masks([0, 1, 2], prefix=LENGTH)
    assert shared.shape == (LENGTH, FEATURES)
    assert not any(np.array_equal(shared, example) for example in examples)
    none, without = masks([0, 1, 2], prefix=0)
    assert none.size == 0
    np.testing.assert_array_equal(without, examples)


@pytest.mark.parametrize("other", [{"layer": 1}, {"place": 3}, {"key": jax.random.key(1)}])
def test_layers_linear_maps_and_steps_draw_anew(other):
    shared, examples = masks([0, 1, 2])
    other_shared, other_examples = masks([0, 1, 2], **other)
    assert not np.array_equal(shared, other_shared)
    assert not np.array_equal(examples, other_examples)


def test_the_decoder_asks_for_each_layers_and_each_maps_own_mask(tiny_folder, monkeypatch):
    student = load_student(str(tiny_folder), lora=LoraConfig(r=2))
    asked, at = [], Dropout.at
    monkeypatch.setattr(Dropout, "at", lambda self, place: (asked.append(place), at(self, place))[1])
    whole = jnp.zeros(TOKENS.shape, jnp.int32)
    masks = Dropout.of_step(RATE, KEY, whole, whole, 0)
    jax.eval_shape(lambda tokens: student.merge(student.adapter, student.base)(tokens, None, masks), TOKENS)
    maps = {place for place in asked if isinstance(place, int)}
    assert maps == set(range(len(LINEAR_NAMES)))
    assert any(isinstance(place, jax.core.Tracer) for place in asked), "the layer's number, known inside the scan"


def test_the_rate_is_right_and_what_is_kept_is_scaled_up():
    shared, examples = masks(range(40))
    values = np.concatenate([shared.ravel(), examples.ravel()])
    assert set(np.unique(values)) == {np.float32(0), np.float32(1 / (1 - RATE))}
    standard_error = math.sqrt(RATE * (1 - RATE) / values.size)
    assert abs((values == 0).mean() - RATE) < 4 * standard_error


def test_dropout_in_the_decoder(tiny, tiny_folder):
    """Where an example stands changes nothing; the base path is never dropped; masks do have an effect."""
    student = trained_student(tiny_folder, LoraConfig(r=4, lora_alpha=16))
    prefix = jnp.asarray(TOKENS[0, :6])
    rows = {example: np.random.default_rng(example).integers(3, 259, 12) for example in (1, 2, 3)}

    @jax.jit
    def hidden(adapter, tokens, ids, key):
        whole = jnp.tile(ids[:, None], (1, tokens.shape[1]))
        masks = Dropout.of_step(0.5, key, whole, jnp.zeros_like(whole), prefix.shape[0])
        return student.merge(adapter, student.base)(tokens, prefix, masks)

    def of(*examples, adapter=student.adapter, key=KEY):
        return np.asarray(hidden(adapter, np.stack([rows[e] for e in examples]), np.array(examples), key))

    np.testing.assert_allclose(of(1, 2)[1], of(2, 3)[0], atol=1e-5)
    assert np.abs(of(1, 2) - of(1, 2, key=jax.random.key(1))).max() > 0.01
    zero = jax.tree.map_with_path(lambda path, x: x * float(path[-1].key == "lora_A"), student.adapter)
    np.testing.assert_array_equal(of(1, 2, adapter=zero), of(1, 2, adapter=zero, key=jax.random.key(1)))
    plain = jax.jit(tiny.merge(tiny.adapter, tiny.base).__call__)(np.stack([rows[1], rows[2]]), prefix)
    np.testing.assert_allclose(of(1, 2, adapter=zero), plain, atol=1e-5)


def test_adding_the_update_to_the_weight_first_changes_only_the_order_of_sums():
    """`added_first` against the two products, values and gradients."""
    rng = np.random.default_rng(0)
    x, weight, a, b, seen = (
        jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((700, 48), (40, 48), (4, 48), (40, 4), (700, 40))
    )

    def value(function, *arguments):
        return lambda *wanted: (function(*wanted, *arguments) * seen).sum()

    def first(x, a, b):
        return added_first(x, weight, a, b, jnp.float32(1.5))

    def after(x, a, b):
        return x @ weight.T + 1.5 * (x @ a.T) @ b.T

    np.testing.assert_allclose(first(x, a, b), after(x, a, b), rtol=1e-4, atol=1e-4)
    ours, plain = (jax.grad(value(function), argnums=(0, 1, 2))(x, a, b) for function in (first, after))
    for one, other in zip(ours, plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu", None])
def test_only_where_float32_is_exact_is_the_update_added_to_the_weight(platform, tiny_folder, monkeypatch):
    """GPUs and TPUs round what they multiply, so that a small update would be lost in the sum. JAX's backend here is the CPU."""
    student = trained_student(str(tiny_folder), LoraConfig(r=2))
    tokens = np.resize(TOKENS, (2, 300))
    hidden = student.merge(student.adapter, student.base)
    expected, calls = hidden(tokens), []
    monkeypatch.setattr(lora, "added_first", lambda *parts: calls.append(parts) or added_first(*parts))
    with on(platform) if platform else nullcontext():
        found = hidden(tokens)
    assert bool(calls) is (platform == "cpu")
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_logits_are_compiled_for_the_devices_that_the_weights_lie_on(tiny_folder, monkeypatch):
    student = trained_student(str(tiny_folder), LoraConfig(r=2))
    calls = []
    monkeypatch.setattr(lora, "added_first", lambda *parts: calls.append(parts) or added_first(*parts))
    student.logits(np.resize(TOKENS, (2, 301)))
    assert calls
