"""Tiny random models in PyTorch: the reference that the student must equal."""

from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from kdjax.sources.tiny import CONFIG, write_tiny_model

torch.set_num_threads(1)  # two threads on a busy machine are slower than one

VOCAB = CONFIG["vocab_size"]
# One shape for all: each new shape is a compilation.
TOKENS = np.random.default_rng(0).integers(3, VOCAB, (2, 70))


def save_model(
    folder: Path, *, dtype=torch.float32, max_shard_size: str = "5GB", model_type="llama", **changes
) -> Path:
    """Write a random model and the tiny tokenizer; no weight is at a value that would hide a mistake (norms are not 1)."""
    write_tiny_model(folder)  # for its tokenizer; transformers overwrites config and weights
    (folder / "model.safetensors").unlink()
    settings = {
        "vocab_size": VOCAB,
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    }
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **settings | changes))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.uniform_(0.5, 1.5)
            else:
                parameter.normal_(0, 0.3 if "embed" in name or "head" in name else 1.5 * parameter.shape[-1] ** -0.5)
    model.to(dtype).save_pretrained(folder, max_shard_size=max_shard_size)
    return folder


def reference(folder: Path):
    """transformers' model of a folder, float32."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@torch.no_grad()
def reference_logits(model, tokens: np.ndarray) -> np.ndarray:
    """Logits [batch, seq, vocab] of whole rows."""
    return model(torch.tensor(tokens)).logits.numpy()
