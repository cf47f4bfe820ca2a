import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training_helpers import PAD, assert_same, fixed_group, one_group

from kdjax.training import Trainer, lay_out, plan_groups
from kdjax.training.loss import TEXT
from kdjax.training.step import OPTAX, adamw, learning_rate_schedule


def test_a_shared_prefix_changes_neither_loss_nor_gradient(two_domains, groups, descent, plain):
    """Two domains, each behind its own prefix, against no prefix, against full logits over whole rows."""
    expected = plain(two_domains)
    planned = plan_groups(two_domains, 64, one_row=True)
    assert [groups[domain].prefix for domain in "ab"] == [planned[domain].prefix for domain in "ab"]
    assert_same(descent(lay_out(two_domains, groups, 1, PAD)), expected)
    assert_same(descent(lay_out(two_domains, one_group(two_domains, prefix=0), 1, PAD)), expected)


def test_any_cut_gives_the_same_step(two_domains, groups, descent, plain):
    """Rows of one length or another, micro-batches full or not, with uneven numbers of targets: a mean of means would differ."""
    examples = two_domains[:11]
    expected = plain(examples)
    in_long_rows = lay_out(examples, {"a": fixed_group(groups["a"].prefix, 72, 40, 4)}, 1, PAD)
    assert (
        max(len(set(row)) for batch in in_long_rows for row in batch.rows.ids[0].tolist()) > 4
    )  # examples and padding
    in_parts = [
        batch for part in (examples[:1], examples[1:6], examples[6:]) for batch in lay_out(part, groups, 1, PAD)
    ]
    assert len(in_parts) >= 3 and len({len(batch.members) for batch in in_parts}) > 1
    in_one_row = lay_out(examples, plan_groups(examples, 10_000, one_row=True), 1, PAD)
    assert [batch.rows.tokens.shape[:2] for batch in in_one_row] == [(1, 1)]
    assert_same(descent(in_long_rows), expected)
    assert_same(descent(in_parts), expected)
    assert_same(descent(in_one_row), expected)


def test_padding_cannot_be_seen(two_domains, groups, descent):
    """Garbage behind a row's end, in unused target slots and in rows of padding changes not one bit."""
    batches = lay_out(two_domains[:11], groups, 1, PAD)
    rng = np.random.default_rng(0)

    def spoil(rows):
        def mixed(kept, real, high):
            return np.where(kept, real, rng.integers(0, high, real.shape).astype(real.dtype))

        length, target = rows.tokens.shape[-1], rows.weights > 0
        return replace(
            rows,
            tokens=mixed(rows.ids >= 0, rows.tokens, 259),
            positions=mixed(target, rows.positions, length),
            labels=mixed(target, rows.labels, 259),
            ids=mixed(rows.ids >= 0, rows.ids, 50),
        )

    spoilt = [replace(batch, rows=spoil(batch.rows)) for batch in batches]
    assert any((one.rows.tokens != other.rows.tokens).any() for one, other in zip(batches, spoilt, strict=True))
    (loss, gradient), (spoilt_loss, spoilt_gradient) = descent(batches), descent(spoilt)
    assert loss == spoilt_loss
    jax.tree.map(np.testing.assert_array_equal, gradient, spoilt_gradient)


@pytest.fixture(scope="module")
def on_four_devices(model_folder, tmp_path_factory, compiled):
    """What `step_on_devices.py` found."""
    script, path = Path(__file__).with_name("step_on_devices.py"), tmp_path_factory.mktemp("devices") / "step.npz"
    environment = os.environ | {
        # Unoptimised, it compiles in half the time.
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0",
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(compiled),
    }
    subprocess.run([sys.executable, script, model_folder, path], check=True, env=environment)
    with np.load(path) as found:
        assert found["devices"] == 4
        return dict(found)


def step_of(found, name, like):
    structure = jax.tree.structure(like)
    leaves = [found[f"{name}/{i}"] for i in range(structure.num_leaves)]
    return found[f"{name}/loss"], jax.tree.unflatten(structure, leaves)


@pytest.mark.parametrize("way", ["pmap", "data", "fsdp", "tensor", "fsdp and tensor"])
def test_four_devices_give_the_step_of_one(on_four_devices, two_domains, plain, way):
    """However they share the work, with uneven numbers of targets, and gradients summed over micro-batches."""
    expected = plain(two_domains[:11])
    assert_same(step_of(on_four_devices, way, expected[1]), expected)


def test_a_forgotten_psum_would_show(on_four_devices, two_domains, plain):
    """pmap would give one device's value back, and say nothing."""
    expected = plain(two_domains[:11])
    with pytest.raises(AssertionError):
        assert_same(step_of(on_four_devices, "forgotten", expected[1]), expected)


def test_a_mesh_cuts_the_base(on_four_devices, student):
    """Nearly all of it lies on one device alone; pmap and data give each a copy."""
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(student.base))
    for way in ("pmap", "data"):
        assert on_four_devices[f"{way}/bytes"] == whole
    for way in ("fsdp", "tensor", "fsdp and tensor"):
        assert whole / 4 <= on_four_devices[f"{way}/bytes"] < 0.3 * whole


def test_the_base_stays_and_the_given_adapter_too(student, two_domains, groups):
    """Each step takes over its state's buffers; the student's own arrays are not among them."""
    before = jax.tree.map(np.array, (student.base, student.adapter))
    trainer = Trainer(student.graph, student.base, optax.adamw(0.1), 0.0)
    state = trainer.init(student.adapter)
    batches = lay_out(two_domains[:11], groups, 1, PAD)
    for _ in range(2):
        state, metrics = trainer.step(state, batches, jax.random.key(0))
    assert state.step == 2 and metrics["tokens"] == sum(len(e.completion_ids) for e in two_domains[:11])
    jax.tree.map(np.testing.assert_array_equal, before, (student.base, student.adapter))
    jax.tree.map(np.testing.assert_array_equal, before[0], trainer.base)
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: np.any(a != b), before[1], state.adapter)))


def test_rows_of_one_shape_are_traced_once(student, two_domains, groups):
    """However many steps there are, and whatever they hold."""
    traced, shapes = [], set()

    def losses(*arguments):
        traced.append(None)
        return TEXT.losses(*arguments)

    trainer = Trainer(student.graph, student.base, optax.adamw(0.1), 0.0, objective=replace(TEXT, losses=losses))
    state = trainer.init(student.adapter)
    for members in (two_domains[:11], two_domains[3:14], two_domains[:11][::-1], two_domains[5:]):
        batches = lay_out(members, groups, 1, PAD)
        shapes |= {(len(batch.prefix), batch.rows.tokens.shape, jax.tree.structure(batch.rows)) for batch in batches}
        state, _ = trainer.step(state, batches, jax.random.key(0))
    assert state.step == 4 and len(traced) == len(shapes) < 8


@pytest.mark.parametrize("warmup_ratio", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 20])
def test_the_schedule_rises_then_falls(steps, warmup_ratio):
    rates = np.array([learning_rate_schedule(2e-3, steps, warmup_ratio)(step) for step in range(steps)])
    top = max(1, round(steps * warmup_ratio)) - 1  # the last step of the warm-up has the peak
    assert (rates > 0).all() and rates[top] == pytest.approx(2e-3)
    np.testing.assert_allclose(rates[: top + 1], 2e-3 * np.arange(1, top + 2) / (top + 1), rtol=1e-5)
    assert (np.diff(rates[top:]) < 0).all()
    if steps == 20 and warmup_ratio == 0.1:
        assert rates[10] == pytest.approx(2e-3 * 0.5 * (1 + np.cos(np.pi * 9 / 19)))  # 9 of 19 steps down
        assert rates[-1] < 0.01 * 2e-3


def test_adamw_clips_then_decays():
    """Two steps by the formulas of AdamW (arXiv 1711.05101), the gradient's norm clipped to 1, the decay times the rate."""
    rates, decay, weights = [0.1, 0.05], 0.3, np.array([1.0, -2.0, 4.0])
    gradients = [np.array([6.0, 0.0, 8.0]), np.array([0.1, 0.2, -0.3])]  # norms 10 and below 1
    optimizer = adamw(lambda step: jnp.asarray(rates)[step], decay, max_grad_norm=1.0)
    parameters = {"x": jnp.asarray(weights, jnp.float32)}
    state = optimizer.init(parameters)
    first, second = np.zeros(3), np.zeros(3)
    for t, (rate, gradient) in enumerate(zip(rates, gradients, strict=True), start=1):
        with OPTAX():
            updates, state = optimizer.update({"x": jnp.asarray(gradient, jnp.float32)}, state, parameters)
        parameters = optax.apply_updates(parameters, updates)
        clipped = gradient / max(1.0, np.linalg.norm(gradient))
        first, second = 0.9 * first + 0.1 * clipped, 0.999 * second + 0.001 * clipped**2
        adam = (first / (1 - 0.9**t)) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
        weights = weights - rate * (adam + decay * weights)
        np.testing.assert_allclose(parameters["x"], weights, rtol=1e-4)
