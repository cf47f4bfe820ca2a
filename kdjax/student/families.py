"""What differs between model families, read out of a Hugging Face config. Everything else in the room is one decoder."""

from dataclasses import dataclass

from kdjax.errors import InputError
from kdjax.student.config_fields import check_fields
from kdjax.student.rope_config import FULL, LAYER_KINDS, SLIDING, RopeConfig, rope_config

Flag = bool | str  # a fixed value, or the config field that decides


@dataclass(frozen=True)
class Family:
    """How an architecture differs from a plain Llama. A new family is one entry of `FAMILIES`."""

    model_type: str  # what config.json calls the family; transformers goes by this name alone
    qkv_bias: Flag = False
    o_bias: Flag = False
    mlp_bias: Flag = False
    qk_norm: bool = False  # RMSNorm over head_dim on queries and keys, before the rotation
    head_dim: int | None = None  # where the config does not say; None: hidden_size / num_attention_heads
    sliding_window: Flag = False  # whether the config's sliding_window counts
    max_window_layers: int = 0  # layers before this one see everything, where the config does not say
    gguf: str = ""  # llama.cpp's name of the architecture, for exported adapters; "": not known


FAMILIES = {
    "LlamaForCausalLM": Family(
        "llama", qkv_bias="attention_bias", o_bias="attention_bias", mlp_bias="mlp_bias", gguf="llama"
    ),
    "MistralForCausalLM": Family("mistral", sliding_window=True, gguf="llama"),
    "Qwen2ForCausalLM": Family(
        "qwen2", qkv_bias=True, sliding_window="use_sliding_window", max_window_layers=28, gguf="qwen2"
    ),
    "Qwen3ForCausalLM": Family(
        "qwen3",
        qkv_bias="attention_bias",
        o_bias="attention_bias",
        qk_norm=True,
        head_dim=128,
        sliding_window="use_sliding_window",
        max_window_layers=28,
        gguf="qwen3",
    ),
}
# Fields by which transformers builds another model than this decoder: the value that changes nothing, and advice.
FIXED: dict[str, tuple[object, str]] = {
    "hidden_act": ("silu", ""),
    "is_causal": (True, ""),
    "per_layer_config": (None, ""),
    "text_config": (None, "; take the language model by itself"),
    "quantization_config": (None, ": weights stored quantised are not read; take the model as it was before"),
}
# Fields that may be null; a null in any other is refused, as by transformers.
NULLABLE = (
    *("num_key_value_heads", "head_dim", "sliding_window", "layer_types", "rope_parameters", "rope_scaling"),
    *("rope_theta", "partial_rotary_factor", "original_max_position_embeddings"),
)


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
    family = FAMILIES[architecture]
    if (model_type := config.get("model_type", family.model_type)) != family.model_type:
        raise InputError(
            f"{where}: model_type={model_type!r} is not that of {architecture}, {family.model_type!r}; "
            "transformers goes by model_type alone, so one of the two is wrong"
        )
    check_fields(config, NULLABLE, where)
    for name, (fixed, advice) in FIXED.items():
        if config.get(name, fixed) != fixed:
            raise InputError(f"{where}: {name}={config[name]!r} is not supported, only {fixed!r}{advice}")

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
            rope=rope_config(config, where),
            qkv_bias=decide(family.qkv_bias),
            o_bias=decide(family.o_bias),
            mlp_bias=decide(family.mlp_bias),
            qk_norm=family.qk_norm,
            sliding_window=_sliding_window(config, family, decide(family.sliding_window), where),
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


def _sliding_window(config: dict, family: Family, used: bool, where: str) -> int | None:
    """The window of all layers; `layer_types` decides where it is there, as in transformers.

    Refused are windows in some layers only; and in a family without one, where transformers' mask passes it over and its cache
    does not, so that what it generates is not what its logits say.
    """
    layers, types = config["num_hidden_layers"], config.get("layer_types")
    window = config.get("sliding_window", 4096) if used else None  # the default of every family that has one
    if not family.sliding_window and config.get("sliding_window") is not None:
        raise InputError(f"{where}: sliding_window={config['sliding_window']} is not supported for {family.model_type}")
    if types is None:
        first = config.get("max_window_layers", family.max_window_layers) if family.max_window_layers else 0
        slides = set() if window is None else {first < layers, first <= 0}
    else:
        if len(types) != layers or any(kind not in LAYER_KINDS for kind in types):
            raise InputError(f"{where}: layer_types must name {SLIDING} or {FULL} for each of {layers} layers")
        slides = {kind == SLIDING for kind in types}
        if window is None and True in slides:
            raise InputError(f"{where}: layer_types names {SLIDING}, and no sliding_window is in use")
    if len(slides) > 1:
        raise InputError(
            f"{where}: sliding_window={window} in some layers only (layer_types, max_window_layers) is not supported"
        )
    return window if slides == {True} else None
