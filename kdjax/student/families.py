"""What differs between model families, read out of a Hugging Face config. Everything else in the room is one decoder."""

from dataclasses import dataclass

from kdjax.errors import InputError


@dataclass(frozen=True)
class RopeConfig:
    """Rotary position settings; the last four are used by type "llama3" alone (names as in Hugging Face's `rope_parameters`)."""

    theta: float
    type: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192


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


FAMILIES = {"LlamaForCausalLM": "llama"}
ROPE_TYPES = ("default", "llama3")


def decoder_config(config: dict, where: str) -> DecoderConfig:
    """Read a Hugging Face config.json; both layouts of the rope settings are understood.

    Raises:
        InputError: an architecture or a setting that this decoder does not compute exactly.
    """
    architecture = (config.get("architectures") or [None])[0]
    if architecture not in FAMILIES:
        raise InputError(f"{where}: architecture {architecture!r} is not supported; supported: {', '.join(FAMILIES)}")
    unsupported = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False}
    for name, only in unsupported.items():
        if config.get(name, only) != only:
            raise InputError(f"{where}: {name}={config[name]!r} is not supported, only {only!r}")
    try:
        heads = config["num_attention_heads"]
        return DecoderConfig(
            vocab_size=config["vocab_size"],
            hidden_size=config["hidden_size"],
            intermediate_size=config["intermediate_size"],
            num_hidden_layers=config["num_hidden_layers"],
            num_attention_heads=heads,
            num_key_value_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            rms_norm_eps=config["rms_norm_eps"],
            max_position_embeddings=config["max_position_embeddings"],
            tie_word_embeddings=config.get("tie_word_embeddings", False),
            rope=_rope_config(config, where),
        )
    except KeyError as error:
        raise InputError(f"{where}: config.json does not say {error}") from error


def _rope_config(config: dict, where: str) -> RopeConfig:
    """transformers 5 keeps everything in `rope_parameters`; older files have `rope_theta` beside `rope_scaling`."""
    settings = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    kind = settings.get("rope_type") or settings.get("type") or "default"
    if kind not in ROPE_TYPES:
        raise InputError(f"{where}: rope type {kind!r} is not supported; supported: {', '.join(ROPE_TYPES)}")
    theta = settings.get("rope_theta", config.get("rope_theta", 10000.0))
    if kind == "default":
        return RopeConfig(theta)
    settings.setdefault("original_max_position_embeddings", config["max_position_embeddings"])  # as transformers does
    names = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    return RopeConfig(theta, kind, *(settings[name] for name in names))
