"""The rotary position settings of a Hugging Face config, in both of their layouts."""

import math
from dataclasses import dataclass

from kdjax.errors import InputError
from kdjax.student.config_fields import check_fields

ORIGINAL = "original_max_position_embeddings"
LAYER_KINDS = SLIDING, FULL = "sliding_attention", "full_attention"  # the words of `layer_types`
NULLABLE = ("factor", "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim")


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


def rope_config(config: dict, where: str) -> RopeConfig:
    """transformers 5 keeps everything in `rope_parameters`; older files have `rope_theta` beside `rope_scaling`.

    Where both are there, transformers drops `rope_parameters` with the theta in it, which hardly anyone means: they must agree.
    """
    blocks = [config[name] for name in ("rope_parameters", "rope_scaling") if config.get(name)] or [{}]
    read = {_rope_block(block, config, where) for block in blocks}
    if len(read) > 1:
        raise InputError(
            f"{where}: rope_parameters and rope_scaling are both in config.json and differ; write all settings, rope_theta "
            "too, into rope_parameters, and remove rope_scaling"
        )
    return read.pop()


def _rope_block(settings: dict, config: dict, where: str) -> RopeConfig:
    check_fields(settings, NULLABLE, where)
    if nested := [name for name, value in settings.items() if isinstance(value, dict) or name in LAYER_KINDS]:
        raise InputError(f"{where}: rope settings of their own for {nested[0]} layers are not supported")
    kind = settings.get("rope_type", settings.get("type", "default"))
    theta = settings.get("rope_theta", config.get("rope_theta", 10000.0))
    if settings.get("partial_rotary_factor", config.get("partial_rotary_factor")) not in (None, 1.0):
        raise InputError(f"{where}: partial_rotary_factor is not supported: all of a head must be rotated")
    longest = config["max_position_embeddings"]
    original = config.get(ORIGINAL, settings.get(ORIGINAL, longest))  # in this order, as in transformers
    for name, value in (("rope_theta", theta), (ORIGINAL, original)):
        if value is None:
            raise InputError(f"{where}: config.json does not say {name!r}: it is null")
    match kind:
        case "default":
            return RopeConfig(theta)
        case "linear":
            return RopeConfig(theta, kind, _said(settings, "factor"))
        case "llama3":
            low, high = settings["low_freq_factor"], settings["high_freq_factor"]
            if high <= low:
                raise InputError(f"{where}: high_freq_factor={high} has to be above low_freq_factor={low}")
            return RopeConfig(theta, kind, _said(settings, "factor"), original, low, high)
        case "yarn":
            factor = settings["factor"] if settings["factor"] is not None else longest / original
            return RopeConfig(
                theta,
                kind,
                factor,
                original,
                beta_fast=settings.get("beta_fast") or 32.0,
                beta_slow=settings.get("beta_slow") or 1.0,
                truncate=settings.get("truncate", True),
                attention_factor=_yarn_attention_factor(factor, settings),
            )
    raise InputError(f"{where}: rope type {kind!r} is not supported; supported: default, linear, llama3, yarn")


def _said(settings: dict, name: str) -> float:
    if settings[name] is None:
        raise KeyError(name)
    return settings[name]


def _yarn_attention_factor(factor: float, settings: dict) -> float:
    """The temperature of YaRN (arXiv 2309.00071, eq. 22: 0.1 ln(factor) + 1) as transformers reads it, DeepSeek's mscale included."""
    if settings.get("attention_factor") is not None:
        return settings["attention_factor"]
    log_factor = math.log(max(factor, 1.0))
    scale, all_dim = settings.get("mscale"), settings.get("mscale_all_dim")
    if scale and all_dim:
        return (0.1 * scale * log_factor + 1.0) / (0.1 * all_dim * log_factor + 1.0)
    return 0.1 * log_factor + 1.0
