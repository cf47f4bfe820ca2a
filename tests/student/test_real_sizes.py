"""Random weights of published shapes: other families load, train and answer at real size. docs/students.md has the numbers."""

import json
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from kdjax.sources.tiny import write_tiny_model
from kdjax.student.families import decoder_config
from kdjax.student.student import _split
from kdjax.student.weights_in import flat_items, tensor_names

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
SHAPES = {
    "Qwen2.5-0.5B": {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "vocab_size": 151936,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": True,
    },
    "Llama-3.2-1B": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 128256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_parameters": LLAMA3,
        "tie_word_embeddings": True,
    },
}
PARAMETERS = {"Qwen2.5-0.5B": 494_032_768, "Llama-3.2-1B": 1_235_814_400}  # as their model cards and files have them


@pytest.mark.real
@pytest.mark.parametrize("name", SHAPES)
def test_real_size(tmp_path, name, capsys):
    write_model(tmp_path, SHAPES[name])
    command = [sys.executable, str(Path(__file__).with_name("real_size.py")), str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    with capsys.disabled():
        print(f"\n{name}: {done.stdout.splitlines()[-1]}")
    assert told["parameters"] == PARAMETERS[name]
    assert told["losses"][1] < told["losses"][0]
    assert told["answers"] == 4
    assert told["difference"] < 1e-3


def write_model(folder, config) -> None:
    """A bfloat16 folder with the tiny tokenizer."""
    write_tiny_model(folder)
    _, _, base = _split(decoder_config(config, "here"), None, np.dtype("float32"), None)
    rng, tensors = np.random.default_rng(0), {}
    for path, leaf in flat_items(base):
        shape = leaf.shape[1:] if path[0] == "layers" else leaf.shape
        for tensor in tensor_names(path, leaf.shape[0]):
            drawn = rng.standard_normal(shape, np.float32) * 0.05 + (1.0 if "norm" in tensor else 0.0)
            tensors[tensor] = drawn.astype(ml_dtypes.bfloat16)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config | {"eos_token_id": 2, "bos_token_id": 1}))
