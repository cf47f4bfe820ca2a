"""Gradients of A, B and the DoRA magnitude, and the adapter after a step of SGD, are PEFT's in PyTorch; with and
without a shared prefix."""

import jax
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")

import torch
from peft import PeftModel
from students import trained_student
from torch_models import reference

from kdjax.student import LoraConfig
from kdjax.student.adapters import peft_tensors
from kdjax.student.dropout import Dropout
from kdjax.student.lora import Here
from kdjax.student.weights_in import flat_items
from kdjax.training.batches import Rows
from kdjax.training.loss import token_losses

PREFIX, LENGTH, TARGETS = 5, 16, 6
LENGTHS = np.array([16, 11, 9])


@pytest.fixture(scope="module")
def rows() -> Rows:
    """Three padded examples; their targets are their last 6, 4 and 2 tokens."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(3, 259, (3, LENGTH)).astype(np.int32)
    weights, positions = np.zeros((3, TARGETS), np.float32), np.zeros((3, TARGETS), np.int32)
    labels = np.zeros((3, TARGETS), np.int32)
    for row, count in enumerate((6, 4, 2)):
        weights[row, :count] = 1
        positions[row, :count] = np.arange(LENGTHS[row] - count - 1, LENGTHS[row] - 1)
        labels[row, :count] = tokens[row, positions[row, :count] + 1]
    return Rows(
        tokens, np.zeros_like(tokens), np.tile(np.arange(3)[:, None], LENGTH), positions, labels, weights, LENGTH
    )


def torch_gradients(model, rows: Rows, prefix: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
    """Summed loss over whole, unpadded rows, one after the other, and PEFT's gradients under the names on disk."""
    total = 0.0
    for tokens, length, weights in zip(rows.tokens, LENGTHS, rows.weights, strict=True):
        whole = torch.tensor(np.concatenate([prefix, tokens[:length]]))
        count = int(weights.sum())
        logits = model(whole[None]).logits[0, -count - 1 : -1]
        total = total + torch.nn.functional.cross_entropy(logits, whole[-count:].long(), reduction="sum")
    total.backward()
    return float(total.detach()), {name: p.grad.numpy() for name, p in trained_parameters(model).items()}


def trained_parameters(model) -> dict[str, torch.nn.Parameter]:
    """PEFT's parameters under their names on disk, where the magnitude has no `.weight`."""
    trained = {name.replace(".default", ""): p for name, p in model.named_parameters() if p.requires_grad}
    return {name.replace("magnitude_vector.weight", "magnitude_vector"): p for name, p in trained.items()}


EVERYTHING = {
    "target_modules": r"model\.layers\.\d\.(self_attn|mlp)\..*_proj",
    "exclude_modules": ["o_proj", "layers.0.mlp.up_proj"],
    "rank_pattern": {"q_proj": 6, r"layers\.1\.mlp\..*": 2},
    "alpha_pattern": {"self_attn.v_proj": 32, "0.self_attn.q_proj": 4},
}
CASES = {
    "lora": (LoraConfig(r=4, lora_alpha=16), 0),
    "lora-prefix": (LoraConfig(r=4, lora_alpha=16), PREFIX),
    "rslora-prefix": (LoraConfig(r=3, lora_alpha=2, target_modules=["q_proj", "down_proj"], use_rslora=True), PREFIX),
    "dora": (LoraConfig(r=4, lora_alpha=16, use_dora=True), 0),
    "dora-prefix": (LoraConfig(r=4, lora_alpha=8, use_dora=True), PREFIX),
    "patterns": (LoraConfig(r=4, lora_alpha=16, **EVERYTHING), PREFIX),
    "dora-rslora-patterns": (LoraConfig(r=4, lora_alpha=4, use_dora=True, use_rslora=True, **EVERYTHING), PREFIX),
    "dora-one-layer": (LoraConfig(r=4, target_modules=["k_proj"], layers_to_transform=[1], use_dora=True), 0),
}


@pytest.mark.parametrize("case", CASES)
def test_gradients_and_a_step_equal_pefts(llama_folder, tmp_path, rows, case):
    lora, size = CASES[case]
    student = trained_student(llama_folder, lora)
    student.save_adapter(tmp_path)
    model = PeftModel.from_pretrained(reference(llama_folder), tmp_path, is_trainable=True)
    prefix = np.random.default_rng(1).integers(3, 259, size).astype(np.int32)
    expected_loss, expected = torch_gradients(model, rows, prefix)

    def loss(adapter):
        return token_losses(student.graph, adapter, student.base, prefix, rows).sum()

    value, gradient = jax.jit(jax.value_and_grad(loss))(student.adapter)
    assert float(value) == pytest.approx(expected_loss, rel=1e-5)
    ours = peft_tensors(gradient, lora)
    assert set(ours) == set(expected)
    for name, theirs in expected.items():
        scale = np.abs(theirs).max()
        assert scale > 1e-3, name
        assert np.abs(ours[name] - theirs).max() < 1e-4 * scale, name
    padding_keeps_zero(student.adapter, gradient, lora)

    parameters = trained_parameters(model)
    torch.optim.SGD(parameters.values(), lr=0.01).step()
    stepped = peft_tensors(jax.tree.map(lambda w, g: w - 0.01 * g, student.adapter, gradient), lora)
    for name, parameter in parameters.items():
        theirs = parameter.detach().numpy()
        assert np.abs(stepped[name] - theirs).max() < 1e-4 * np.abs(theirs).max(), name


def padding_keeps_zero(adapter, gradient, lora) -> None:
    """Where a layer has a smaller rank than the stack, or none, both the value and its gradient are zero."""
    for (path, values), (_, slopes) in zip(flat_items(adapter), flat_items(gradient), strict=True):
        for layer, rank in enumerate(lora.plans(2)[path[-2]].ranks):
            for part in (np.asarray(values[layer]), np.asarray(slopes[layer])):
                if path[-1] == "lora_A":
                    assert not part[rank:].any(), path
                elif path[-1] == "lora_B":
                    assert not part[:, rank:].any(), path
                elif not rank:
                    assert not part.any(), path


def test_dropout_of_dora_follows_peft(llama_folder, monkeypatch):
    """PEFT drops the input of the base product inside the update too, but never of the base path itself."""
    lora = LoraConfig(r=4, lora_alpha=8, use_dora=True, lora_dropout=0.5, target_modules=["q_proj"])
    student = trained_student(llama_folder, lora)
    q = jax.tree.map(lambda leaf: np.asarray(leaf[0]), student.adapter["layers"]["self_attn"]["q_proj"])
    weight = np.asarray(student.base["layers"]["self_attn"]["q_proj"]["weight"][0])
    x = np.random.default_rng(0).normal(size=(7, 48)).astype(np.float32)
    dropped = np.where(np.arange(48) % 2, 2 * x, 0)
    monkeypatch.setattr(Dropout, "__call__", lambda self, x: dropped)
    masks = Dropout(0.5, jax.random.split(jax.random.key(0), 7))
    layer = jax.tree.map(lambda leaf: leaf[0], (student.adapter, student.base))
    linear = student.merge(*layer).layers.self_attn.q_proj
    update = weight + 2 * q["lora_B"] @ q["lora_A"]
    ratio = q["lora_magnitude_vector"] / np.linalg.norm(update, axis=1)
    expected = x @ weight.T + dropped @ (ratio[:, None] * update - weight).T
    np.testing.assert_allclose(linear(x, Here(np.int32(0), masks)), expected, atol=1e-4)
