"""Training for pairs of products: the same whatever the layout, and exact against whole rows."""

from dataclasses import replace
from itertools import chain

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training_helpers import PAD, SETTINGS, assert_same

from kdjax.data import load_domain
from kdjax.prompting import ProductForm, training_example
from kdjax.student import fit_pair_head, pair_logits
from kdjax.training import PairRows, Trainer, Training, lay_out, pair_labels, pairs, plan_groups, preview

LAYERS = 1


@pytest.fixture(scope="module")
def examples(student):
    sessions = load_domain("demo", "", "demo").splits["train"][:6]
    form = ProductForm(("title", "categories"))
    told = [training_example(student.tokenizer, "a", session, "Rules: …", form=form) for session in sessions[:4]]
    return told + [training_example(student.tokenizer, "b", session, form=form) for session in sessions[4:]]


@pytest.fixture(scope="module")
def trained(student, examples):
    rng = np.random.default_rng(0)
    states = [rng.normal(size=(len(e.products), 2, student.config.hidden_size)) for e in examples]
    return {"adapter": student.adapter, "head": fit_pair_head(states, [*map(pair_labels, examples)])}


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
    """By the definition: each prompt whole and by itself, means over the tokens of its products' fields, log of the sigmoid."""

    def loss(trained):
        total = count = 0.0
        for example in examples:
            decoder = student.merge(trained["adapter"], student.base)
            hidden = decoder.hidden(LAYERS, jnp.asarray([example.prompt_ids]))[0]
            states = jnp.stack(
                [jnp.stack([hidden[first:end].mean(axis=0) for first, end in fields]) for fields in example.products]
            )
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
    _, gradient = descent(lay_out(examples, plan_groups(examples, 10_000, kind=PairRows), 1, PAD))
    for leaf in jax.tree.leaves(gradient["adapter"]):
        assert leaf[:LAYERS].any() and not leaf[LAYERS:].any()


def test_rows_hold_each_pair_once_and_each_fields_own_tokens(examples):
    groups = plan_groups(examples, 700, kind=PairRows)
    for batch in lay_out(examples, groups, 2, PAD):
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

    whole = training("whole")
    best = whole.run()
    losses = [row["loss"] for row in whole.progress.history]
    assert np.mean(losses[-2:]) < 0.98 * np.mean(losses[:2])
    assert whole.progress.target_tokens == 8 * sum(len(pair_labels(example)) for example in examples)
    with pytest.raises(Stopped):
        training("parts", on_event=stop).run()
    again = training("parts").run()
    jax.tree.map(np.testing.assert_array_equal, again, best)


def test_the_preview_shows_what_belongs_together(student, examples):
    batch = lay_out(examples[:4], plan_groups(examples, 10_000, kind=PairRows), 1, PAD)[0]
    shown, text = examples[batch.members[0]], preview(student, batch)
    for number in range(len(shown.products)):
        mates = {i + 1 for bundle in shown.bundles if number in bundle for i in bundle if i != number}
        line = student.tokenizer.decode(shown.prompt_ids[shown.products[number][0][0] : shown.products[number][-1][1]])
        assert f"{line}⟦{', '.join(map(str, sorted(mates)))}⟧" in text
