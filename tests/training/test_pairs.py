"""Training for pairs of products: the same whatever the layout, and exact against whole rows."""

from dataclasses import replace
from itertools import chain

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_helpers import PAD, SETTINGS, assert_same

from kdjax.data import load_domain
from kdjax.prompting import ProductForm, training_example
from kdjax.student import pair_logits
from kdjax.training import PairRows, Trainer, Training, lay_out, pair_labels, pairs, plan_groups, preview
from kdjax.training.clock import compile_seconds

LAYERS = 1


@pytest.fixture(scope="module")
def examples(student):
    sessions = load_domain("demo", "", "demo").splits["train"][:6]
    form = ProductForm(("title", "categories"))
    told = [training_example(student.tokenizer, "a", session, "Rules: …", form=form) for session in sessions[:4]]
    return told + [training_example(student.tokenizer, "b", session, form=form) for session in sessions[4:]]


@pytest.fixture(scope="module")
def trained(student, examples):
    """Any head will do; a fitted one would whiten the few products' states, and rounding with them."""
    rng, fields, width = np.random.default_rng(0), 2, 8
    shapes = {"center": (fields, student.config.hidden_size), "difference": (fields, width), "product": (fields, width)}
    shapes |= {"projection": (fields, student.config.hidden_size, width), "cosine": (fields,), "bias": ()}
    head = {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}
    return {"adapter": student.adapter, "head": head | {"center": 0.1 * head["center"]}}


def states_of(student, adapter, example):
    """By the definition: the prompt whole and by itself, means over the tokens of its products' fields."""
    hidden = student.merge(adapter, student.base).hidden(LAYERS, jnp.asarray([example.prompt_ids]))[0]
    return jnp.stack(
        [jnp.stack([hidden[first:end].mean(axis=0) for first, end in fields]) for fields in example.products]
    )


@pytest.fixture(scope="module")
def descent(student, trained):
    trainer = Trainer(student.graph, student.base, optax.sgd(1.0), 0.0, objective=pairs(LAYERS))

    def step(batches):
        after, metrics = trainer.step(trainer.init(trained), batches, jax.random.key(0))
        gradient = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), trained, after.adapter)
        return float(metrics["loss"]), gradient

    return step


@pytest.fixture(scope="module")
def expected(student, trained, examples):
    """Binary cross-entropy by the log of the sigmoid, over all pairs."""

    def loss(trained):
        total = count = 0.0
        for example in examples:
            states = states_of(student, trained["adapter"], example)
            logits = pair_logits(trained["head"], states, *np.triu_indices(len(states), k=1))
            labels = pair_labels(example)
            total -= jnp.sum(labels * jax.nn.log_sigmoid(logits) + (1 - labels) * jax.nn.log_sigmoid(-logits))
            count += len(labels)
        return total / count

    value, gradient = jax.value_and_grad(loss)(trained)
    return float(value), gradient


@pytest.mark.parametrize("one_row", [True, False])
@pytest.mark.parametrize("micro_batch_tokens", [200, 10_000])
def test_any_layout_gives_the_step_of_whole_prompts(examples, descent, expected, micro_batch_tokens, one_row):
    groups = plan_groups(examples, micro_batch_tokens, one_row, PairRows)
    assert all(len(group.prefix) > 50 for group in groups.values())
    batches = lay_out(examples, groups, 1, PAD)
    assert (len(batches) > 2) == (micro_batch_tokens == 200)
    assert_same(descent(batches), expected)


def test_layers_behind_the_head_get_no_gradient(examples, descent):
    _, gradient = descent(lay_out(examples, plan_groups(examples, 10_000, one_row=True, kind=PairRows), 1, PAD))
    for leaf in jax.tree.leaves(gradient["adapter"]):
        assert leaf[:LAYERS].any() and not leaf[LAYERS:].any()


@settings(max_examples=30)
@given(
    chosen=st.lists(st.integers(0, 5), min_size=1, max_size=12),
    micro_batch_tokens=st.integers(1, 3000),
    devices=st.integers(1, 3),
    one_row=st.booleans(),
)
def test_rows_hold_each_pair_once_and_each_fields_own_tokens(examples, chosen, micro_batch_tokens, devices, one_row):
    examples = [examples[i] for i in chosen]
    groups = plan_groups(examples, micro_batch_tokens, one_row, PairRows)
    batches = lay_out(examples, groups, devices, PAD)
    assert sorted(chain(*(batch.members for batch in batches))) == list(range(len(examples)))
    for batch in batches:
        rows = jax.tree.map(lambda array: array.reshape(-1, array.shape[-1]), batch.rows)
        numbers = {}  # (row, part's number) → its tokens
        for row, part in zip(*np.nonzero(rows.parts >= 0), strict=True):
            numbers.setdefault((int(row), int(rows.parts[row, part])), []).append(int(rows.tokens[row, part]))
        own = sorted(numbers.values())
        assert own == sorted(
            list(examples[i].prompt_ids[first:end])
            for i in batch.members
            for first, end in chain(*examples[i].products)
        )
        asked = rows.weights > 0
        assert asked.sum() == sum(len(pair_labels(examples[i])) for i in batch.members)
        assert (rows.labels * rows.weights).sum() == sum(pair_labels(examples[i]).sum() for i in batch.members)
        found = {(int(row), int(rows.first[row, p]), int(rows.second[row, p])) for row, p in np.argwhere(asked)}
        assert len(found) == asked.sum() and all(first < second for _, first, second in found)


def test_it_learns_and_goes_on_bit_for_bit(student, examples, trained, tmp_path):
    class Stopped(Exception):
        pass

    def stop(row):
        if row["step"] == 5:
            raise Stopped

    def training(folder, **more):
        settings = replace(SETTINGS, batch_size=len(examples), learning_rate=2e-2)
        more |= {"objective": pairs(LAYERS), "initial": trained}
        return Training(student, [examples] * 8, settings, tmp_path / folder, **more)

    compiled = []
    whole = training("whole", on_event=lambda row: compiled.append(compile_seconds()))
    best = whole.run()
    assert len(compiled) == 8 and compiled[2:] == compiled[2:3] * 6  # nothing is compiled after the first steps
    losses = [row["loss"] for row in whole.progress.history]
    assert np.mean(losses[-2:]) < 0.98 * np.mean(losses[:2])
    assert whole.progress.target_tokens == 8 * sum(len(pair_labels(example)) for example in examples)
    with pytest.raises(Stopped):
        training("parts", on_event=stop).run()
    again = training("parts").run()
    jax.tree.map(np.testing.assert_array_equal, again, best)


def test_the_preview_shows_what_belongs_together(student, examples):
    batch = lay_out(examples[:4], plan_groups(examples, 10_000, one_row=True, kind=PairRows), 1, PAD)[0]
    shown, text = examples[batch.members[0]], preview(student, batch)
    for number in range(len(shown.products)):
        mates = {i + 1 for bundle in shown.bundles if number in bundle for i in bundle if i != number}
        line = student.tokenizer.decode(shown.prompt_ids[shown.products[number][0][0] : shown.products[number][-1][1]])
        assert f"{line}⟦{', '.join(map(str, sorted(mates)))}⟧" in text
