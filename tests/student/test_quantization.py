"""A quantised base: what is stored, how near it is, that layers compute with exactly that, and what it costs in memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from students import trained_student

from configs.base import base
from kdjax.data import load_domain
from kdjax.errors import InputError
from kdjax.prompting import training_example
from kdjax.sources import DEFAULT_MODEL
from kdjax.student import QUANTIZATIONS, LoraConfig, load_student
from kdjax.student.families import decoder_config
from kdjax.student.quantization import NF4, block_size, dequantize, quantize
from kdjax.student.student import _split
from kdjax.student.weights_in import flat_items
from kdjax.study.settings import train_settings
from kdjax.training import Training
from kdjax.training.batches import Rows
from kdjax.training.loss import token_losses

TOKENS = np.random.default_rng(0).integers(3, 259, (2, 40)).astype(np.int32)
LORA = LoraConfig(r=4, lora_alpha=16, use_dora=True)


# What is stored


def test_the_values_of_nf4_by_their_definition():
    """Eight quantiles of the normal distribution above zero, seven below, and zero, scaled to ±1 (QLoRA, appendix E)."""
    outermost = (1 / 32 + 1 / 30) / 2  # mean of the two tails' steps
    above = norm.ppf(np.linspace(1 - outermost, 0.5, 9)[:-1])
    below = -norm.ppf(np.linspace(1 - outermost, 0.5, 8)[:-1])
    values = np.sort([*above, *below, 0.0])
    np.testing.assert_allclose(NF4, values / values.max(), atol=1e-6)


@given(st.sampled_from([2, 48, 64, 96, 128, 576]), st.sampled_from(QUANTIZATIONS), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=30)
def test_every_weight_goes_to_the_nearest_value_of_its_block(columns, method, seed):
    weight = np.random.default_rng(seed).standard_t(3, (3, columns)).astype(np.float32)
    weight[0, :2] = 0
    stored = quantize(weight, method)
    assert stored["codes"].nbytes == weight.size // (1 if method == "int8" else 2)
    assert stored["scales"].shape == (3, columns // block_size(columns))
    found = np.asarray(dequantize(**{name: jnp.asarray(part) for name, part in stored.items()}))
    blocks = weight.reshape(3, -1, block_size(columns))
    largest = np.abs(blocks).max(-1, keepdims=True)
    values = NF4 if method == "nf4" else np.arange(-127, 128) / 127
    nearest = np.abs(blocks[..., None] - largest[..., None] * values).min(-1)
    error = np.abs(blocks - found.reshape(blocks.shape))
    np.testing.assert_allclose(error, nearest, atol=1e-5 * largest.max())


def test_zeros_stay_zero():
    for method in QUANTIZATIONS:
        stored = quantize(np.zeros((2, 64), np.float32), method)
        assert not np.asarray(dequantize(**{name: jnp.asarray(part) for name, part in stored.items()})).any()


def test_a_row_of_odd_length_is_refused():
    with pytest.raises(InputError, match="a linear layer with 45 inputs, an odd number"):
        quantize(np.ones((2, 45), np.float32), "int8")


# What is computed


@pytest.mark.parametrize("method", QUANTIZATIONS)
def test_layers_compute_with_what_is_stored(tiny_folder, tmp_path, method):
    """Logits are those of the same weights, dequantised and written as an ordinary model; so are the gradients."""
    student = trained_student(tiny_folder, LORA, quantization=method)
    plain = load_student(str(tiny_folder), quantization=method)
    plain.save_merged(tmp_path / "base")
    same = load_student(str(tmp_path / "base"), lora=LORA)
    same.adapter = student.adapter
    np.testing.assert_allclose(student.logits(TOKENS), same.logits(TOKENS), rtol=0, atol=2e-5)

    def gradient(student):
        def loss(adapter):
            return jnp.square(student.merge(adapter, student.base)(TOKENS)).mean()

        return jax.jit(jax.grad(loss))(student.adapter)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * np.abs(b).max()),
        gradient(student),
        gradient(same),
    )
    student.save_merged(tmp_path / "merged")
    merged = load_student(str(tmp_path / "merged"))
    np.testing.assert_allclose(merged.logits(TOKENS), student.logits(TOKENS), rtol=0, atol=2e-4)


@pytest.mark.parametrize(("method", "most"), [("int8", 0.03), ("nf4", 0.3)])
def test_logits_stay_near(tiny, tiny_folder, method, most):
    expected = np.asarray(tiny.logits(TOKENS))
    found = np.asarray(load_student(str(tiny_folder), quantization=method).logits(TOKENS))
    error = np.sqrt(np.square(found - expected).mean() / np.square(expected).mean())
    assert 0 < error < most


def test_an_adapter_moves_between_quantised_and_plain_students(tiny_folder, tmp_path):
    student = trained_student(tiny_folder, LORA, quantization="nf4")
    student.save_adapter(tmp_path)
    again = load_student(str(tiny_folder), adapter=tmp_path, quantization="nf4")
    np.testing.assert_array_equal(again.logits(TOKENS), student.logits(TOKENS))
    assert load_student(str(tiny_folder), adapter=tmp_path).quantization is None


def test_only_linear_layers_are_quantised(tiny_folder):
    student = load_student(str(tiny_folder), quantization="int8", dtype="bfloat16")
    for path, leaf in flat_items(student.base):
        linear = path[-2].endswith("_proj")
        assert isinstance(leaf, dict) == linear, path
        assert linear or leaf.dtype == jnp.bfloat16


# What it costs


SHAPE = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 512,
    "hidden_size": 256,
    "intermediate_size": 1024,
    "num_hidden_layers": 12,
    "num_attention_heads": 4,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}
SMALL = 0.001  # the 16 values of NF4, and what XLA aligns


def memory(method: str | None, remat: str = "linears") -> dict[str, int]:
    """Bytes of the gradient program of one micro-batch whose activations are smaller than the weights of a layer."""
    lora = LoraConfig(r=4, target_modules=("q_proj", "v_proj"))
    graph, adapter, base = _split(decoder_config(SHAPE, "here"), lora, jnp.dtype("float32"), method)
    of = jax.ShapeDtypeStruct
    ids, targets = of((2, 16), jnp.int32), of((2, 4), jnp.int32)
    rows = Rows(ids, ids, ids, targets, targets, of((2, 4), jnp.float32), 16)

    def loss(adapter, base, prefix, rows):
        return token_losses(graph, adapter, base, prefix, rows, None, remat).sum()

    program = jax.jit(jax.grad(loss)).lower(adapter, base, of((8,), jnp.int32), rows).compile()
    layers = jax.tree.leaves(base["layers"])
    return {
        "resident": sum(leaf.size * leaf.dtype.itemsize for leaf in layers),
        "temporary": program.memory_analysis().temp_size_in_bytes,
    }


@pytest.fixture(scope="module")
def plain_memory():
    return memory(None)


@pytest.mark.parametrize(("method", "bits"), [("int8", 8.5), ("nf4", 4.5)])
def test_resident_bytes_shrink_and_no_dequantised_layer_is_kept_for_the_backward_pass(
    plain_memory, method, bits, capsys
):
    """The temporary bytes are the plain program's: a layer's weights, sliced out of the stack there and dequantised here.

    Kept for the backward pass, the dequantised layers would be as large as all of the plain base.
    """
    found = memory(method)
    with capsys.disabled():
        print(f"\n{method}: resident {found['resident']:,} of {plain_memory['resident']:,} bytes", end=", ")
        print(f"temporary {found['temporary']:,} of {plain_memory['temporary']:,}")
    assert found["resident"] == pytest.approx(plain_memory["resident"] * bits / 32, rel=0.01)
    assert found["temporary"] < (1 + SMALL) * plain_memory["temporary"]
    assert found["temporary"] < plain_memory["resident"]


def test_without_checkpointing_they_would_be_kept(plain_memory):
    """What the test above is there to notice."""
    assert memory("int8", remat="none")["temporary"] > plain_memory["temporary"] + 0.5 * plain_memory["resident"]


@pytest.mark.real
def test_fifty_steps_on_real_weights(tmp_path, capsys):
    """int8 trains like float32, its loss within 1 %; by how much nf4 differs is printed."""
    loss = {method: fifty_steps(method, tmp_path / str(method)) for method in (None, *QUANTIZATIONS)}
    with capsys.disabled():
        for method, value in loss.items():
            print(f"\n{method}: mean loss of 50 steps {value:.4f}, {value / loss[None] - 1:+.2%} of float32", end="")
    assert abs(loss["int8"] / loss[None] - 1) < 0.01
    assert loss["nf4"] != loss[None]


def fifty_steps(method: str | None, folder) -> float:
    """Mean loss of SmolLM2 over 50 steps of 4 demo sessions."""
    domain = load_domain("demo", "", "demo")
    student = load_student(DEFAULT_MODEL, lora=LoraConfig(r=16, lora_alpha=32), quantization=method)
    examples = [training_example(student.tokenizer, "demo", session) for session in domain.splits["train"]]
    config = base("fifty_steps")
    config.train.update(max_steps=50, batch_size=4, learning_rate=2e-4, checkpoint_every=100)
    training = Training(student, [examples] * config.train.epochs, train_settings(config), folder)
    training.run()
    losses = [row["loss"] for row in training.progress.history if "loss" in row]
    assert len(losses) == 50
    return float(np.mean(losses))
