"""The head on the states of two products: its fit, its form, its file."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from kdjax.errors import InputError
from kdjax.student import fit_pair_head, load_pair_head, pair_logits, save_pair_head
from kdjax.student.pair_head import PAIR_HEAD


@pytest.fixture(scope="module")
def kinds():
    """Sessions of products of three kinds, in two fields of 12 numbers with noise: the same kind belongs together."""
    rng = np.random.default_rng(0)
    middles = rng.normal(size=(3, 2, 12))
    states, together = [], []
    for size in rng.integers(2, 8, 60):
        kind = rng.integers(0, 3, size)
        first, second = np.triu_indices(size, k=1)
        states.append((middles[kind] + 0.1 * rng.normal(size=(size, 2, 12))).astype(np.float32))
        together.append((kind[first] == kind[second]).astype(float))
    return states, together


def test_a_fitted_head_tells_what_belongs_together_in_new_sessions(kinds):
    states, together = kinds
    head = fit_pair_head(states[:40], together[:40])
    for one, labels in zip(states[40:], together[40:], strict=True):
        logits = pair_logits(head, one, *np.triu_indices(len(one), k=1))
        np.testing.assert_array_equal(np.asarray(logits) > 0, labels == 1)


def test_numpy_computes_what_jax_does_and_nothing_is_compiled(kinds):
    states, together = kinds
    head = fit_pair_head(states, together)
    plain = jax.device_get(head)
    for one in states[:5]:
        pair = np.triu_indices(len(one), k=1)
        with jax.transfer_guard("disallow"):  # no array of NumPy's goes to a device
            found = pair_logits(plain, one, *pair)
        assert type(found) is np.ndarray and found.dtype == np.float32
        np.testing.assert_allclose(found, pair_logits(head, jnp.asarray(one), *pair), rtol=1e-4, atol=1e-4)


def test_a_fitted_head_is_scikit_learns_regression_on_its_features(kinds):
    """The weights are those of standardised features, told for the features as they are."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    states, together = kinds
    products = np.concatenate(states)
    components = [PCA(12, whiten=True).fit(products[:, field]) for field in range(2)]

    def features(one):
        told = []
        for field in range(2):
            z = components[field].transform(one[:, field])
            a, b = (z[places] for places in np.triu_indices(len(z), k=1))
            cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
            told += [np.abs(a - b), a * b, cosine]
        return np.column_stack(told)

    expected = make_pipeline(StandardScaler(), LogisticRegression(C=0.003, max_iter=1000))
    expected.fit(np.concatenate([*map(features, states)]), np.concatenate(together))
    head = fit_pair_head(states, together)
    found = pair_logits(head, states[0], *np.triu_indices(len(states[0]), k=1))
    np.testing.assert_allclose(found, expected.decision_function(features(states[0])), atol=1e-3)


def test_the_order_of_two_products_does_not_matter(kinds):
    states, together = kinds
    head = fit_pair_head(states, together)
    first, second = np.triu_indices(len(states[0]), k=1)
    np.testing.assert_allclose(
        pair_logits(head, states[0], first, second), pair_logits(head, states[0], second, first), rtol=1e-5
    )


def test_equal_states_have_a_finite_gradient(kinds):
    head = fit_pair_head(*kinds)
    states = jnp.stack([head["center"], head["center"], kinds[0][0][0]])
    gradient = jax.grad(lambda s: pair_logits(head, s, np.array([0, 0]), np.array([1, 2])).sum())(states)
    assert np.isfinite(gradient).all()


def test_fewer_products_than_numbers_do_not_blow_up(kinds):
    states, together = kinds
    few = [np.pad(one, ((0, 0), (0, 0), (0, 40))) for one in states[:3]]
    head = fit_pair_head(few, together[:3])
    assert head["projection"].shape == (2, 52, 32)
    assert head["projection"].any(axis=1).sum() < 2 * sum(map(len, few)) < 64
    logits = [pair_logits(head, one, *np.triu_indices(len(one), k=1)) for one in few]
    assert np.abs(np.concatenate(logits)).max() < 10


def test_a_field_that_no_product_has_says_nothing(kinds):
    states, together = kinds
    empty = [np.concatenate([one[:, :1], np.zeros_like(one[:, 1:])], axis=1) for one in states]
    head = fit_pair_head(empty, together)
    assert not head["projection"][1].any() and not head["cosine"][1].any() and not head["product"][1].any()
    first, second = np.triu_indices(len(states[0]), k=1)
    assert ((np.asarray(pair_logits(head, empty[0], first, second)) > 0) == together[0]).all()


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_where_pairs_are_of_one_kind_each_pair_is(kinds, label):
    states = kinds[0]
    head = fit_pair_head(states, [np.full(len(labels), label) for labels in kinds[1]])
    logits = np.concatenate([pair_logits(head, one, *np.triu_indices(len(one), k=1)) for one in states])
    assert ((logits > 5) == label).all() and (np.abs(logits) > 5).all()


def test_a_file_keeps_a_head_bit_for_bit(kinds, tmp_path):
    head = fit_pair_head(*kinds)
    save_pair_head(tmp_path, head)
    again = load_pair_head(tmp_path, fields=2, hidden=12)
    assert again.keys() == head.keys() and all(np.array_equal(again[name], head[name]) for name in head)


def test_a_file_that_is_no_head_of_this_student_is_refused(kinds, tmp_path):
    with pytest.raises(InputError, match="not a readable safetensors file"):
        load_pair_head(tmp_path, 2, 12)
    (tmp_path / PAIR_HEAD).write_bytes(b"torn")
    with pytest.raises(InputError, match="not a readable safetensors file"):
        load_pair_head(tmp_path, 2, 12)
    save_pair_head(tmp_path, fit_pair_head(*kinds))
    with pytest.raises(InputError, match=r"'center': \(2, 12\).*'center': \(2, 576\)"):
        load_pair_head(tmp_path, 2, 576)
    save_file({"bias": np.zeros(1)}, tmp_path / PAIR_HEAD)
    with pytest.raises(InputError, match="a pair head of this student has"):
        load_pair_head(tmp_path, 2, 12)
