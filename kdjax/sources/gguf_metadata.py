"""The metadata of a GGUF file: which fields are read, and which change nothing, at which values.

A field of the architecture or the tokenizer that is not in the tables is refused by name: it might change the answers.
Names and meanings: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, and llama.cpp's llama-model.cpp for the
values at which a field has no effect.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kdjax.errors import InputError

Check = Callable[[Any, Mapping[str, Any]], bool]  # (value, all fields) → whether it changes nothing beyond what is read


def _any(value: Any, fields: Mapping[str, Any]) -> bool:
    return True


def _only(*values: Any) -> Check:
    return lambda value, fields: value in values


def _head_size(value: Any, fields: Mapping[str, Any]) -> bool:
    heads, hidden = (fields.get(f"llama.{name}") for name in ("attention.head_count", "embedding_length"))
    shared = hidden // heads if type(heads) is int and type(hidden) is int and heads else None
    return value == fields.get("llama.attention.key_length", shared)


def _vocabulary(value: Any, fields: Mapping[str, Any]) -> bool:
    tokens = fields.get("tokenizer.ggml.tokens")
    return isinstance(tokens, list) and value == len(tokens)


def _whole_context(value: Any, fields: Mapping[str, Any]) -> bool:
    context = fields.get("llama.context_length")
    return value == 0 or (type(value) is int and type(context) is int and value >= context)


ARCHITECTURE: dict[str, Check] = {
    "block_count": _any,
    "context_length": _any,
    "embedding_length": _any,
    "feed_forward_length": _any,
    "vocab_size": _vocabulary,
    "tensor_data_layout": _only("Meta AI original pth"),  # as all Llama files are
    "attention.head_count": _any,
    "attention.head_count_kv": _any,
    "attention.layer_norm_rms_epsilon": _any,
    "attention.key_length": _any,
    "attention.value_length": _head_size,
    "attention.causal": _only(True),
    "attention.sliding_window": _whole_context,
    "attention.clamp_kqv": _only(0),
    "attention.max_alibi_bias": _only(0),
    "attention.scale": _only(0),  # 0: one over the root of the head size
    "rope.freq_base": _any,
    "rope.dimension_count": _head_size,
    "rope.scale_linear": _only(0, 1),
    "rope.scaling.type": _only("none"),
    "rope.scaling.factor": _only(0, 1),
    "rope.scaling.attn_factor": _only(1),
    "rope.scaling.yarn_log_multiplier": _only(0),
    "rope.scaling.original_context_length": _any,  # used by the scaling types alone
    "rope.scaling.finetuned": _any,
    "expert_count": _only(0),
    "expert_used_count": _only(0),
    "use_parallel_residual": _only(False),
    "logit_scale": _only(0, 1),
    "embedding_scale": _only(0, 1),
    "residual_scale": _only(0, 1),
    "attn_logit_softcapping": _only(0),
    "final_logit_softcapping": _only(0),
    "pooling_type": _only(0),
}
TOKENIZER: dict[str, Check] = {
    "ggml.model": _any,
    "ggml.pre": _any,
    "ggml.tokens": _any,
    "ggml.token_type": _any,
    "ggml.merges": _any,
    "ggml.scores": _any,  # merges rank the tokens of a byte-level vocabulary
    "chat_template": _any,
    "chat_templates": _any,  # the names of others, each in chat_template.<name>
    "huggingface.json": _any,
    # Special tokens come from the chat template, so nothing is added at either end.
    **dict.fromkeys(["ggml.add_bos_token", "ggml.add_eos_token", "ggml.add_sep_token"], _any),
    **dict.fromkeys([f"ggml.{name}_token_id" for name in ("bos", "eos", "eot", "eom", "unknown", "padding")], _any),
    **dict.fromkeys([f"ggml.{name}_token_id" for name in ("seperator", "separator", "cls", "mask")], _any),
    **dict.fromkeys([f"ggml.{name}_token_id" for name in ("prefix", "suffix", "middle")], _any),
    **dict.fromkeys([f"ggml.fim_{name}_token_id" for name in ("pre", "suf", "mid", "pad", "rep", "sep")], _any),
    "ggml.add_space_prefix": _only(False),
    "ggml.remove_extra_whitespaces": _only(False),
}
# Elsewhere (names, licences, how a file was made) an unknown field is no fault.
OTHERS: dict[str, Check] = {"general.type": _only("model"), "general.quantization_version": _only(2)}


class GGUFMetadata:
    """The metadata fields of one file of the Llama architecture, checked."""

    def __init__(self, path: Path, fields: Mapping[str, Any]):
        """Raises InputError, which names the field, where one would have to be followed and is not."""
        self.path, self.fields = path, fields
        architecture = self.field("general.architecture")
        if architecture != "llama":
            raise InputError(
                f"{path}: GGUF architecture {architecture!r} is not supported, only 'llama'; use the Hugging Face folder instead"
            )
        if (parts := fields.get("split.count", 1)) not in (0, 1):
            raise InputError(
                f"{path}: this is one of {parts} parts of a model; join them with llama.cpp's llama-gguf-split --merge"
            )
        for name, value in fields.items():
            check = _check_of(name)
            if check is None:
                raise InputError(
                    f"{path}: the metadata field {name} is not known and might change the answers; use the Hugging Face folder instead"
                )
            if not check(value, fields):
                raise InputError(
                    f"{path}: the metadata field {name} is {value!r}, which is not supported; use the Hugging Face folder instead"
                )

    def field(self, name: str, default=None):
        """The value of a metadata field, or `default`; without a default a missing field is an error."""
        if name in self.fields:
            return self.fields[name]
        if default is None:
            raise InputError(f"{self.path}: the metadata field {name} is missing")
        return default

    def whole(self, name: str, default: int | None = None) -> int:
        """The value of a metadata field that is a whole number, at least 1."""
        value = self.field(name, default)
        if type(value) is not int or value < 1:
            raise InputError(
                f"{self.path}: the metadata field {name} is {value!r}; it must be a whole number, at least 1"
            )
        return value

    def list_of(self, kind: type, name: str) -> list:
        """The value of a metadata field that is a list of texts or of numbers."""
        values = self.field(name)
        if not isinstance(values, list) or not all(type(value) is kind for value in values):
            raise InputError(f"{self.path}: the metadata field {name} is not a list of {kind.__name__}")
        return values

    def token(self, name: str) -> str:
        """The text of the token whose id a metadata field holds."""
        tokens, i = self.list_of(str, "tokenizer.ggml.tokens"), self.field(name)
        if type(i) is not int or not 0 <= i < len(tokens):
            raise InputError(f"{self.path}: the metadata field {name} is {i!r}; there are {len(tokens)} tokens")
        return tokens[i]


def _check_of(name: str) -> Check | None:
    """The check of a field; None for one that is not known where every one must be."""
    room, _, rest = name.partition(".")
    if room == "tokenizer":
        return _any if rest.startswith("chat_template.") else TOKENIZER.get(rest)
    return ARCHITECTURE.get(rest) if room == "llama" else OTHERS.get(name, _any)
