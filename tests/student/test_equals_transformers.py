"""The student's logits are those of transformers' LlamaForCausalLM, in float32."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from torch_models import TOKENS, reference, reference_logits, save_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from kdjax.sources import DEFAULT_MODEL, resolve
from kdjax.student import load_student

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,  # the rows here are longer, so every branch of the formula is used
}


def difference(folder, tokens=TOKENS) -> float:
    """The largest difference of logits, student against transformers."""
    expected = reference_logits(reference(folder), tokens)
    assert np.abs(expected).max() > 5, "logits near zero would be equal by chance"
    return np.abs(np.asarray(load_student(str(folder)).logits(tokens)) - expected).max()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_word_embeddings": False},
        {"num_key_value_heads": 4},
        {"num_key_value_heads": 1, "rms_norm_eps": 0.1},
        {"head_dim": 8, "num_hidden_layers": 1},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
        {"rope_parameters": LLAMA3, "head_dim": 16},
    ],
    ids=["tied-gqa", "untied", "mha", "mqa-large-eps", "head_dim", "theta", "llama3"],
)
def test_logits_of_a_tiny_model(changes, tmp_path):
    assert difference(save_model(tmp_path / "model", **changes)) < 1e-4


def test_llama3_scaling_changes_these_logits(tmp_path):
    """Else the case above would prove nothing about the scaling."""
    scaled = reference(save_model(tmp_path / "scaled", rope_parameters=LLAMA3, head_dim=16))
    plain = reference(save_model(tmp_path / "plain", head_dim=16))
    assert np.abs(reference_logits(scaled, TOKENS) - reference_logits(plain, TOKENS)).max() > 0.1


@pytest.mark.parametrize(
    "settings",
    [
        {"rope_theta": 500.0},
        {"rope_theta": 500.0, "rope_scaling": None},
        {"rope_theta": 500.0, "rope_scaling": {k: v for k, v in LLAMA3.items() if k != "rope_theta"}},
        # transformers takes max_position_embeddings where the original length is not said
        {
            "rope_scaling": {k: v for k, v in LLAMA3.items() if not k.startswith("original")},
            "max_position_embeddings": 32,
        },
    ],
    ids=["theta", "no-scaling", "llama3", "llama3-no-length"],
)
def test_the_older_layout_of_rope_settings(settings, tmp_path):
    folder = save_model(tmp_path / "model", head_dim=16)
    config = json.loads((folder / "config.json").read_text())
    del config["rope_parameters"]
    (folder / "config.json").write_text(json.dumps(config | settings))
    assert difference(folder) < 1e-4


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_weights_are_read_exactly(tmp_path, dtype):
    folder = save_model(tmp_path / "model", dtype=getattr(torch, dtype))
    assert json.loads((folder / "config.json").read_text())["dtype"] == dtype
    assert difference(folder) < 1e-4


def test_sharded_weights(tmp_path):
    folder = save_model(tmp_path / "model", max_shard_size="60KB")
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 2
    assert difference(folder) < 1e-4


def test_a_bfloat16_student_is_near_and_its_logits_are_float32(llama_folder):
    student = load_student(str(llama_folder), dtype="bfloat16")
    assert student.base["layers"]["self_attn"]["q_proj"]["weight"].dtype == jnp.bfloat16
    logits = student.logits(TOKENS)
    assert logits.dtype == jnp.float32
    expected = reference_logits(reference(llama_folder), TOKENS)
    assert np.abs(np.asarray(logits) - expected).mean() < 0.02 * np.abs(expected).max()


# The real model


@pytest.fixture(scope="module")
def smollm_folder(tmp_path_factory):
    """The default model as transformers reads it from GGUF, saved as an ordinary folder."""
    gguf = resolve(DEFAULT_MODEL).gguf
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # It was read from a quantised file, and transformers refuses to save such a model while it says so.
    del model.config.quantization_config
    for name in ("hf_quantizer", "quantization_method", "is_quantized"):
        if hasattr(model, name):
            delattr(model, name)
    folder = tmp_path_factory.mktemp("smollm")
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
    return folder


@pytest.mark.real
def test_smollm2_from_gguf_and_from_a_folder(smollm_folder):
    tokens = np.random.default_rng(0).integers(20, 49_000, (1, 512))
    expected = reference_logits(reference(smollm_folder), tokens)
    students = [load_student(DEFAULT_MODEL), load_student(str(smollm_folder))]
    for student in students:
        assert np.abs(np.asarray(student.logits(tokens)) - expected).max() < 1e-3
    text = students[0].tokenizer.render([{"role": "user", "content": "1. Café mug 300 ml\n2. HDMI cable"}])
    assert students[0].tokenizer.encode(text) == students[1].tokenizer.encode(text)
