"""What differs between model families, read out of a Hugging Face config. Everything else in the room is one decoder."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeGuard

from kdjax.errors import InputError

Flag = bool | str  # a fixed value, or the config field that decides


@dataclass(frozen=True)
class Family:
    """How an architecture differs from a plain Llama. A new family is one entry of `FAMILIES`."""

    qkv_bias: Flag = False
    o_bias: Flag = False
    mlp_bias: Flag = False
    qk_norm: bool = False  # RMSNorm over head_dim on queries and keys, before the rotation
    head_dim: int | None = None  # where the config does not say; None: hidden_size / num_attention_heads
    sliding_window: Flag = False  # whether the config's sliding_window counts
    max_window_layers: int = 0  # layers before this one see everything, where the config does not say
    gguf: str = ""  # llama.cpp's name of the architecture, for exported adapters; "": not known


FAMILIES = {
    "LlamaForCausalLM": Family(qkv_bias="attention_bias", o_bias="attention_bias", mlp_bias="mlp_bias", gguf="llama"),
    "MistralForCausalLM": Family(sliding_window=True, gguf="llama"),
    "Qwen2ForCausalLM": Family(qkv_bias=True, sliding_window="use_sliding_window", max_window_layers=28, gguf="qwen2"),
    "Qwen3ForCausalLM": Family(
        qkv_bias="attention_bias",
        o_bias="attention_bias",
        qk_norm=True,
        head_dim=128,
        sliding_window="use_sliding_window",
        max_window_layers=28,
        gguf="qwen3",
    ),
}


@dataclass(frozen=True)
class RopeConfig:
    """Rotary position settings, by the names of Hugging Face's `rope_parameters`; each type uses some of them."""

    theta: float
    type: str = "default"
    factor: float = 1.0
    original_max_position_embeddings: int = 0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    attention_factor: float = 1.0  # multiplies cos and sin


@dataclass(frozen=True)
class DecoderConfig:
    """The shape of a decoder, by Hugging Face's names."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float
    max_position_embeddings: int
    tie_word_embeddings: bool
    rope: RopeConfig
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    sliding_window: int | None = None  # a token sees itself and the sliding_window − 1 before it
    attention: str = "own"  # what computes it over whole examples, see `load_student`


def architecture_of(config: dict, where: str) -> str:
    """The architecture that a Hugging Face config.json names. InputError where it is none of `FAMILIES`."""
    named = config.get("architectures") or [None]
    architecture = named[0] if isinstance(named, list) else named
    if not isinstance(architecture, str) or architecture not in FAMILIES:
        raise InputError(f"{where}: architecture {architecture!r} is not supported; supported: {', '.join(FAMILIES)}")
    return architecture


def decoder_config(config: dict, where: str) -> DecoderConfig:
    """Read a Hugging Face config.json; both layouts of the rope settings are understood.

    Raises:
        InputError: an architecture or a setting that this decoder does not compute exactly.
    """
    architecture = architecture_of(config, where)
    family, config = FAMILIES[architecture], _checked(config, where)
    if config.get("hidden_act", "silu") != "silu":
        raise InputError(f"{where}: hidden_act={config['hidden_act']!r} is not supported, only 'silu'")
    if config.get("quantization_config"):
        raise InputError(
            f"{where}: quantization_config: weights stored quantised are not read; take the model as it was before"
        )

    def decide(flag: Flag) -> bool:
        return bool(config.get(flag, False)) if isinstance(flag, str) else flag

    for name in ("attention_bias", "mlp_bias"):  # set, and of no meaning to this family: the file is not what it says
        if config.get(name) and name not in (family.qkv_bias, family.mlp_bias):
            raise InputError(f"{where}: {name}={config[name]!r} is not supported for {architecture}")
    try:
        heads = config["num_attention_heads"]
        read = DecoderConfig(
            vocab_size=config["vocab_size"],
            hidden_size=config["hidden_size"],
            intermediate_size=config["intermediate_size"],
            num_hidden_layers=config["num_hidden_layers"],
            num_attention_heads=heads,
            num_key_value_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or family.head_dim or config["hidden_size"] // heads,
            rms_norm_eps=config["rms_norm_eps"],
            max_position_embeddings=config["max_position_embeddings"],
            tie_word_embeddings=config.get("tie_word_embeddings", False),
            rope=_rope_config(config, where),
            qkv_bias=decide(family.qkv_bias),
            o_bias=decide(family.o_bias),
            mlp_bias=decide(family.mlp_bias),
            qk_norm=family.qk_norm,
            sliding_window=_sliding_window(config, family, where) if decide(family.sliding_window) else None,
        )
    except KeyError as error:
        raise InputError(f"{where}: config.json does not say {error}") from error
    if read.head_dim < 2 or read.head_dim % 2:
        raise InputError(f"{where}: a head_dim of {read.head_dim} cannot be rotated in two halves")
    if heads % read.num_key_value_heads:
        raise InputError(
            f"{where}: {heads} attention heads do not share {read.num_key_value_heads} key_value_heads equally"
        )
    return read


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _fields(names: str, fits: Callable[[object], bool], wanted: str) -> dict[str, tuple[Callable[[object], bool], str]]:
    return dict.fromkeys(names.split(), (fits, wanted))


_FORMS = {  # what a field of config.json, or of its rope settings, has to be where it is there and not null
    **_fields(
        "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim "
        "max_position_embeddings original_max_position_embeddings sliding_window",
        lambda value: type(value) is int and value >= 1,
        "a whole number, at least 1",
    ),
    **_fields(
        "rms_norm_eps rope_theta factor low_freq_factor high_freq_factor beta_fast beta_slow attention_factor",
        lambda value: _is_number(value) and value > 0,
        "a finite number above 0",
    ),
    **_fields("mscale mscale_all_dim max_window_layers", _is_number, "a finite number"),
    **_fields(
        "tie_word_embeddings attention_bias mlp_bias use_sliding_window truncate",
        lambda value: isinstance(value, bool),
        "true or false",
    ),
    **_fields("layer_types", lambda value: isinstance(value, list), "a list"),
    **_fields("rope_parameters rope_scaling", lambda value: isinstance(value, dict), "an object"),
}


def _checked(settings: dict, where: str) -> dict:
    """The settings without those that are null, which mean a default, as in transformers; but of a window null says that there is none."""
    for name, value in settings.items():
        if name in _FORMS and value is not None:
            fits, wanted = _FORMS[name]
            if not fits(value):
                raise InputError(f"{where}: {name} in config.json is {repr(value)[:80]}, and has to be {wanted}")
    return {name: value for name, value in settings.items() if value is not None or name == "sliding_window"}


def _sliding_window(config: dict, family: Family, where: str) -> int | None:
    """The window of all layers. `layer_types` decides where it is there, as in transformers; mixed layers are refused."""
    window = config.get("sliding_window", 4096)  # the default of every family that has one
    if window is None:
        return None
    layers = config["num_hidden_layers"]
    types = config.get("layer_types") if family.max_window_layers else None  # Mistral's window is for all layers
    first = config.get("max_window_layers", family.max_window_layers)
    slides = {kind == "sliding_attention" for kind in types} if types else {i >= first for i in range(layers)}
    if len(slides) > 1:
        raise InputError(
            f"{where}: sliding_window={window} in some layers only (layer_types, max_window_layers) is not supported"
        )
    return window if slides == {True} else None


def _rope_config(config: dict, where: str) -> RopeConfig:
    """transformers 5 keeps everything in `rope_parameters`; older files have `rope_theta` beside `rope_scaling`."""
    settings = _checked(config.get("rope_parameters") or config.get("rope_scaling") or {}, where)
    kind = settings.get("rope_type") or settings.get("type") or "default"
    theta = settings.get("rope_theta", config.get("rope_theta", 10000.0))
    if settings.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0)) != 1.0:
        raise InputError(f"{where}: partial_rotary_factor is not supported: all of a head must be rotated")
    original = settings.get("original_max_position_embeddings") or config["max_position_embeddings"]  # as transformers
    match kind:
        case "default":
            return RopeConfig(theta)
        case "linear":
            return RopeConfig(theta, kind, settings["factor"])
        case "llama3":
            low, high = settings["low_freq_factor"], settings["high_freq_factor"]
            return RopeConfig(theta, kind, settings["factor"], original, low, high)
        case "yarn":
            return RopeConfig(
                theta,
                kind,
                settings["factor"],
                original,
                beta_fast=settings.get("beta_fast") or 32.0,
                beta_slow=settings.get("beta_slow") or 1.0,
                truncate=settings.get("truncate", True),
                attention_factor=_yarn_attention_factor(settings),
            )
    raise InputError(f"{where}: rope type {kind!r} is not supported; supported: default, linear, llama3, yarn")


def _yarn_attention_factor(settings: dict) -> float:
    """The temperature of YaRN (arXiv 2309.00071, eq. 22: 0.1 ln(factor) + 1) as transformers reads it, DeepSeek's mscale included."""
    if settings.get("attention_factor") is not None:
        return settings["attention_factor"]
    log_factor = math.log(max(settings["factor"], 1.0))
    scale, all_dim = settings.get("mscale"), settings.get("mscale_all_dim")
    if scale and all_dim:
        return (0.1 * scale * log_factor + 1.0) / (0.1 * all_dim * log_factor + 1.0)
    return 0.1 * log_factor + 1.0
