"""GGUF → Hugging Face names, config and tokenizer. Only Llama files are read: others order their tensors differently."""

import json
import struct
from collections.abc import Callable
from functools import cached_property, lru_cache, partial
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from kdjax.errors import InputError

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
LLAMA3_PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CONTROL_TOKEN, USER_DEFINED_TOKEN = 3, 4  # gguf.TokenType: special tokens, and added ones that are text


class GGUFModel:
    """One opened GGUF file of the Llama architecture."""

    def __init__(self, path: Path):
        from kdjax.sources.gguf_reader import read_gguf  # only here: other models do without the package gguf

        self.path = path
        try:
            self.fields, self.tensors = read_gguf(path)
        except (ValueError, struct.error, OSError, OverflowError, RecursionError) as error:
            raise InputError(f"{path}: not a readable GGUF file ({error})") from error
        architecture = self.field("general.architecture")
        if architecture != "llama":
            raise InputError(
                f"{path}: GGUF architecture {architecture!r} is not supported, only 'llama'; use the Hugging Face folder instead"
            )

    def field(self, name: str, default=None):
        """The value of a metadata field, or `default`; without a default a missing field is an error."""
        if name in self.fields:
            return self.fields[name]
        if default is None:
            raise InputError(f"{self.path}: the metadata field {name} is missing")
        return default

    def _whole(self, name: str, default: int | None = None) -> int:
        """The value of a metadata field that is a whole number, at least 1."""
        value = self.field(name, default)
        if type(value) is not int or value < 1:
            raise InputError(
                f"{self.path}: the metadata field {name} is {value!r}; it must be a whole number, at least 1"
            )
        return value

    def config(self) -> dict:
        """The same settings as in a Hugging Face config.json."""
        if self.field("llama.rope.scaling.type", "none") != "none" or "rope_freqs.weight" in self.tensors:
            raise InputError(
                f"{self.path}: rope scaling inside GGUF is not supported; use the Hugging Face folder instead"
            )
        heads, hidden = self._whole("llama.attention.head_count"), self._whole("llama.embedding_length")
        epsilon = self.field("llama.attention.layer_norm_rms_epsilon")
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": len(self._list("tokenizer.ggml.tokens", str)),
            "hidden_size": hidden,
            "intermediate_size": self.field("llama.feed_forward_length"),
            "num_hidden_layers": self.field("llama.block_count"),
            "num_attention_heads": heads,
            "num_key_value_heads": self._whole("llama.attention.head_count_kv", heads),
            "head_dim": self.field("llama.attention.key_length", hidden // heads),
            "hidden_act": "silu",
            "max_position_embeddings": self.field("llama.context_length"),
            "rms_norm_eps": round(epsilon, 12) if isinstance(epsilon, float) else epsilon,
            "rope_parameters": {"rope_type": "default", "rope_theta": self.field("llama.rope.freq_base", 10000.0)},
            "tie_word_embeddings": "output.weight" not in self.tensors,
            "bos_token_id": self.field("tokenizer.ggml.bos_token_id"),
            "eos_token_id": self.field("tokenizer.ggml.eos_token_id"),
        }

    def weights(self) -> dict[str, Callable[[], np.ndarray]]:
        """Hugging Face tensor name → a function that dequantises it to float32, in Hugging Face's layout."""
        heads = {"attn_q": self._whole("llama.attention.head_count")}
        heads["attn_k"] = self._whole("llama.attention.head_count_kv", heads["attn_q"])
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
        if self.field("tokenizer.ggml.model") != "gpt2":
            raise InputError(
                f"{self.path}: tokenizer model {self.field('tokenizer.ggml.model')!r} is not supported, only byte-level BPE ('gpt2')"
            )
        tokens = self._list("tokenizer.ggml.tokens", str)
        kinds = self._list("tokenizer.ggml.token_type", int)
        merges = [tuple(merge.split(" ", 1)) for merge in self._list("tokenizer.ggml.merges", str)]
        if len(kinds) != len(tokens):
            raise InputError(
                f"{self.path}: tokenizer.ggml.token_type has {len(kinds)} entries for {len(tokens)} tokens"
            )
        family = self.field("tokenizer.ggml.pre", "default")
        vocabulary = {token: i for i, token in enumerate(tokens)}
        try:
            tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=family == "llama-bpe"))
        except Exception as error:  # the tokenizers library raises bare Exception
            raise InputError(f"{self.path}: tokens and merges do not make a tokenizer ({error})") from error
        tokenizer.pre_tokenizer = _pre_tokenizer(family, self.path)
        tokenizer.decoder = decoders.ByteLevel()
        added = [
            AddedToken(token, special=kind == CONTROL_TOKEN, normalized=False)
            for token, kind in zip(tokens, kinds, strict=True)
            if kind in (CONTROL_TOKEN, USER_DEFINED_TOKEN)
        ]
        tokenizer.add_tokens(added)
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": self._token("tokenizer.ggml.bos_token_id"),
            "eos_token": self._token("tokenizer.ggml.eos_token_id"),
            "add_bos_token": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": self.field("llama.context_length"),
        }
        if "tokenizer.chat_template" in self.fields:
            settings["chat_template"] = self.field("tokenizer.chat_template")
        return tokenizer, settings

    def _list(self, name: str, kind: type) -> list:
        values = self.field(name)
        if not isinstance(values, list) or not all(type(value) is kind for value in values):
            raise InputError(f"{self.path}: the metadata field {name} is not a list of {kind.__name__}")
        return values

    def _token(self, name: str) -> str:
        """The text of the token whose id a metadata field holds."""
        tokens, i = self.field("tokenizer.ggml.tokens"), self.field(name)
        if type(i) is not int or not 0 <= i < len(tokens):
            raise InputError(f"{self.path}: the metadata field {name} is {i!r}; there are {len(tokens)} tokens")
        return tokens[i]


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


def _pre_tokenizer(name: str, path: Path):
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if name == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    if name in ("default", "gpt-2"):
        return byte_level
    if name == "llama-bpe":
        split = pre_tokenizers.Split(Regex(LLAMA3_PATTERN), "isolated")
        return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    raise InputError(f"{path}: pre-tokenizer {name!r} is not supported; use the Hugging Face folder instead")
