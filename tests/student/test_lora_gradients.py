"""The gradient of the summed loss towards A and B is PEFT's in PyTorch, on plain rows and behind a shared prefix."""

import jax
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")

import torch
from llamas import reference
from peft import PeftModel
from students import trained_student

from kdjax.student import LoraConfig
from kdjax.student.adapters import peft_tensors
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
    return Rows(tokens, LENGTHS, positions, labels, weights, np.arange(3))


def torch_gradients(model, rows: Rows, prefix: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
    """Summed loss over whole, unpadded rows, one after the other, and PEFT's gradients under the names on disk."""
    total = 0.0
    for tokens, length, weights in zip(rows.tokens, rows.lengths, rows.weights, strict=True):
        whole = torch.tensor(np.concatenate([prefix, tokens[:length]]))
        count = int(weights.sum())
        logits = model(whole[None]).logits[0, -count - 1 : -1]
        total = total + torch.nn.functional.cross_entropy(logits, whole[-count:].long(), reduction="sum")
    total.backward()
    names = {name.replace(".default", ""): p.grad for name, p in model.named_parameters() if p.requires_grad}
    return float(total.detach()), {name: gradient.numpy() for name, gradient in names.items()}


ALL = LoraConfig(r=4, lora_alpha=16)
SOME = LoraConfig(r=3, lora_alpha=2, target_modules=["q_proj", "down_proj"], use_rslora=True)


@pytest.mark.parametrize(
    ("lora", "size"), [(ALL, 0), (ALL, PREFIX), (SOME, PREFIX)], ids=["all-plain", "all-prefix", "rslora-subset-prefix"]
)
def test_gradients_equal_pefts(llama_folder, tmp_path, rows, lora, size):
    student = trained_student(llama_folder, lora)
    student.save_adapter(tmp_path)
    model = PeftModel.from_pretrained(reference(llama_folder), tmp_path, is_trainable=True)
    prefix = np.random.default_rng(1).integers(3, 259, size).astype(np.int32)
    expected_loss, expected = torch_gradients(model, rows, prefix)

    def loss(adapter):
        return token_losses(student.graph, adapter, student.base, prefix, rows).sum()

    value, gradient = jax.jit(jax.value_and_grad(loss))(student.adapter)
    assert float(value) == pytest.approx(expected_loss, rel=1e-5)
    gradient = peft_tensors(gradient)
    assert set(gradient) == set(expected)
    for name, theirs in expected.items():
        scale = np.abs(theirs).max()
        assert scale > 1e-3, name
        assert np.abs(gradient[name] - theirs).max() < 1e-4 * scale, name
