"""GGUF → Hugging Face names, config and tokenizer. Only Llama files are read: others order their tensors differently."""

import json
import struct
from collections.abc import Callable
from functools import cached_property, lru_cache, partial
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from kdjax.errors import InputError
from kdjax.sources.gguf_metadata import GGUFMetadata
from kdjax.sources.gguf_tokenizer import BOS, LLAMA3_PATTERN, end_ids, gguf_tokenizer

__all__ = ["LLAMA3_PATTERN", "GGUFModel", "open_gguf", "tokenizer_json"]

LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OUTER_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
REORDERED = ("llama",)  # architectures whose query and key rows llama.cpp stores in another order


class GGUFModel:
    """One opened GGUF file of the Llama architecture."""

    def __init__(self, path: Path):
        from kdjax.sources.gguf_reader import read_gguf  # only here: other models do without the package gguf

        self.path = path
        try:
            fields, self.tensors = read_gguf(path)
        except (ValueError, struct.error, OSError, OverflowError, RecursionError) as error:
            raise InputError(f"{path}: not a readable GGUF file ({error})") from error
        self.metadata = GGUFMetadata(path, fields)

    def config(self) -> dict:
        """The same settings as in a Hugging Face config.json."""
        if "rope_freqs.weight" in self.tensors:
            raise InputError(
                f"{self.path}: rope scaling inside GGUF is not supported; use the Hugging Face folder instead"
            )
        field, whole, ends = self.metadata.field, self.metadata.whole, end_ids(self.metadata)
        heads, hidden = whole("llama.attention.head_count"), whole("llama.embedding_length")
        epsilon = field("llama.attention.layer_norm_rms_epsilon")
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": len(self.metadata.list_of(str, "tokenizer.ggml.tokens")),
            "hidden_size": hidden,
            "intermediate_size": field("llama.feed_forward_length"),
            "num_hidden_layers": field("llama.block_count"),
            "num_attention_heads": heads,
            "num_key_value_heads": whole("llama.attention.head_count_kv", heads),
            "head_dim": field("llama.attention.key_length", hidden // heads),
            "hidden_act": "silu",
            "max_position_embeddings": field("llama.context_length"),
            "rms_norm_eps": round(epsilon, 12) if isinstance(epsilon, float) else epsilon,
            "rope_parameters": {"rope_type": "default", "rope_theta": field("llama.rope.freq_base", 10000.0)},
            "tie_word_embeddings": "output.weight" not in self.tensors,
            "bos_token_id": field(BOS),
            "eos_token_id": ends if len(ends) > 1 else ends[0],
        }

    def weights(self) -> dict[str, Callable[[], np.ndarray]]:
        """Hugging Face tensor name → a function that dequantises it to float32, in Hugging Face's layout."""
        heads = {"attn_q": self.metadata.whole("llama.attention.head_count")}
        heads["attn_k"] = self.metadata.whole("llama.attention.head_count_kv", heads["attn_q"])
        found: dict[str, Callable[[], np.ndarray]] = {}
        for name in self.tensors:
            if name in OUTER_NAMES:
                found[OUTER_NAMES[name]] = partial(self._read, name)
                continue
            block, layer, part, kind = ([*name.split("."), "", "", ""])[:4]
            if block != "blk" or part not in LAYER_NAMES:
                raise InputError(f"{self.path}: unexpected tensor {name}")
            found[f"model.layers.{layer}.{LAYER_NAMES[part]}.{kind}"] = partial(self._read, name, heads.get(part))
        return found

    def _read(self, name: str, heads: int | None = None) -> np.ndarray:
        """A tensor, its rows in Hugging Face's order where it is made of `heads`."""
        tensor = self.tensors[name]
        if heads and (len(tensor.shape) != 2 or tensor.shape[0] % (2 * heads)):
            raise InputError(f"{self.path}: tensor {name} of shape {tensor.shape} does not divide into {heads} heads")
        try:
            weight = tensor.read()
        except NotImplementedError as error:
            raise InputError(f"{self.path}: tensor {name}: {error}; use the Hugging Face folder instead") from error
        return from_ggml_rows(weight, heads) if heads else weight

    @cached_property
    def tokenizer(self) -> tuple[Tokenizer, dict]:
        """The byte-level BPE tokenizer, and what a tokenizer_config.json would say (template, special tokens)."""
        return gguf_tokenizer(self.metadata)

    @property
    def end_ids(self) -> list[int]:
        """The ids of the tokens that end a turn."""
        return end_ids(self.metadata)


@lru_cache(maxsize=2)
def open_gguf(path: Path) -> GGUFModel:
    """The opened file, which config, weights and tokenizer share."""
    return GGUFModel(path)


def tokenizer_json(tokenizer: Tokenizer) -> str:
    """The tokenizer.json text of `tokenizer`."""
    return json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False)


def from_ggml_rows(weight: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp's rotary rows, [heads, head_dim/2, 2], in Hugging Face's order of halves, [heads, 2, head_dim/2]."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def to_ggml_rows(weight: np.ndarray, heads: int) -> np.ndarray:
    """The inverse of `from_ggml_rows`."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
