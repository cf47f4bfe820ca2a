from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training_helpers import PAD, random_examples, tiny_student

from kdjax.student import REMAT
from kdjax.training import lay_out, plan_groups, target_nll, token_losses
from kdjax.training.loss import TILE


@pytest.mark.parametrize(
    ("vocab", "dtype", "tolerance"),
    [(70, "float32", 1e-5), (2 * TILE, "float32", 1e-5), (TILE + 44, "float32", 1e-5), (TILE + 44, "bfloat16", 2e-2)],
)
def test_target_nll_and_its_gradient_are_those_of_log_softmax(vocab, dtype, tolerance):
    rng, count = np.random.default_rng(0), 9
    hidden = jnp.asarray(rng.normal(size=(count, 24)), dtype)
    head = jnp.asarray(rng.normal(size=(vocab, 24)), dtype)
    labels = jnp.asarray(rng.integers(0, vocab, count))
    weights = jnp.asarray(rng.uniform(size=count), jnp.float32)

    def by_definition(hidden):
        log_probabilities = jax.nn.log_softmax(hidden @ head.astype(jnp.float32).T)
        return -log_probabilities[jnp.arange(count), labels]

    nll = target_nll(hidden, head, labels)
    assert nll.dtype == jnp.float32
    np.testing.assert_allclose(nll, by_definition(hidden.astype(jnp.float32)), rtol=1e-5, atol=1e-5)
    gradient = jax.grad(lambda h: (weights * target_nll(h, head, labels)).sum())(hidden)
    expected = jax.grad(lambda h: (weights * by_definition(h)).sum())(hidden.astype(jnp.float32))
    assert gradient.dtype == hidden.dtype
    np.testing.assert_allclose(gradient.astype(jnp.float32), expected, rtol=tolerance, atol=tolerance)


def test_the_head_is_frozen():
    rng = np.random.default_rng(0)
    hidden, head = jnp.asarray(rng.normal(size=(3, 8))), jnp.asarray(rng.normal(size=(5, 8)))
    gradient = jax.grad(lambda head: target_nll(hidden, head, jnp.array([0, 1, 4])).sum())(head)
    assert not np.any(gradient)


def test_memory_does_not_grow_with_the_vocabulary():
    def scratch(vocab: int) -> int:
        hidden, head = jax.ShapeDtypeStruct((300, 24), jnp.float32), jax.ShapeDtypeStruct((vocab, 24), jnp.float32)
        labels = jax.ShapeDtypeStruct((300,), jnp.int32)
        step = jax.jit(jax.grad(lambda *inputs: target_nll(*inputs).sum()))
        return step.lower(hidden, head, labels).compile().memory_analysis().temp_size_in_bytes

    assert scratch(32 * TILE) < 1.1 * scratch(4 * TILE) < 300 * 4 * TILE * 4  # bytes of all logits


def test_token_losses_are_those_of_full_logits(student, two_domains, plain):
    """Behind the shared prefix, in the order of the targets, and 0 where there is none."""
    batch = lay_out(two_domains, plan_groups(two_domains, 10_000, one_row=True), 1, PAD)[0]
    rows = jax.tree.map(lambda array: array[0], batch.rows)
    losses = jax.jit(lambda *arrays: token_losses(student.graph, *arrays))(
        student.adapter, student.base, batch.prefix, rows
    )
    losses = np.asarray(losses)
    expected = plain.losses([two_domains[i] for i in batch.members])
    of_row = np.take_along_axis(rows.ids, rows.positions, axis=1)
    for member, right in zip(batch.members, expected, strict=True):
        np.testing.assert_allclose(losses[(rows.weights > 0) & (of_row == member)], right, rtol=1e-4)
    assert not np.any(losses[rows.weights == 0])


def test_rows_and_neighbours_do_not_move_dropout(student, two_domains):
    """An example's masks hang on its number and the step's key alone."""
    examples = two_domains[:6]
    groups = plan_groups(examples, 10_000, one_row=True)

    @jax.jit
    def losses(adapter, base, prefix, rows, key):
        return token_losses(student.graph, adapter, base, prefix, rows, (0.3, key))

    def by_number(chosen, key=7):
        (batch,) = lay_out([examples[i] for i in chosen], groups, 1, PAD, ids=chosen)
        rows = jax.tree.map(lambda array: array[0], batch.rows)
        loss = np.asarray(losses(student.adapter, student.base, batch.prefix, rows, jax.random.key(key)))
        of_row = np.take_along_axis(rows.ids, rows.positions, axis=1)
        return {number: float(loss[(rows.weights > 0) & (of_row == number)].sum()) for number in chosen}

    together = by_number(range(6))
    assert by_number([4, 1, 2]) | by_number([5, 3, 0]) == pytest.approx(together, rel=1e-5)
    assert by_number(range(6), key=8) != pytest.approx(together, rel=1e-2)
    assert by_number(range(6)) == together


def test_what_is_kept_for_the_backward_pass_changes_memory_and_nothing_else(tmp_path):
    """Policies of `remat`: the same loss and gradients; "full" needs the least room, "none" the most."""
    student = tiny_student(tmp_path / "tiny")
    examples = random_examples("a", 4, prefix=5)
    [batch] = lay_out(examples, plan_groups(examples, 10_000, one_row=True), 1, PAD)
    rows = jax.tree.map(lambda array: array[0], batch.rows)

    def program(remat):
        def loss(adapter):
            return token_losses(student.graph, adapter, student.base, batch.prefix, rows, None, remat).sum()

        return jax.jit(jax.value_and_grad(loss)).lower(student.adapter).compile()

    programs = {remat: program(remat) for remat in REMAT}
    (value, gradients), *others = (compiled(student.adapter) for compiled in programs.values())
    for other_value, other_gradients in others:
        np.testing.assert_allclose(other_value, value, rtol=1e-6)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), other_gradients, gradients)
    room = {remat: compiled.memory_analysis().temp_size_in_bytes for remat, compiled in programs.items()}
    assert room["full"] < room["linears"] < room["none"]
