"""What a field of config.json, or of its rope settings, has to be."""

import math
from collections.abc import Callable, Sequence
from typing import TypeGuard

from kdjax.errors import InputError


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _fields(names: str, fits: Callable[[object], bool], wanted: str) -> dict[str, tuple[Callable[[object], bool], str]]:
    return dict.fromkeys(names.split(), (fits, wanted))


FORMS = {  # what a field of config.json, or of its rope settings, has to be where it is there and not null
    **_fields(
        "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim "
        "max_position_embeddings original_max_position_embeddings sliding_window",
        lambda value: type(value) is int and value >= 1,
        "a whole number, at least 1",
    ),
    **_fields(
        "rms_norm_eps factor low_freq_factor high_freq_factor beta_fast beta_slow attention_factor",
        lambda value: _is_number(value) and value > 0,
        "a finite number above 0",
    ),
    **_fields("rope_theta", lambda value: _is_number(value) and value > 1, "a finite number above 1"),
    **_fields("mscale mscale_all_dim max_window_layers partial_rotary_factor", _is_number, "a finite number"),
    **_fields(
        "tie_word_embeddings attention_bias mlp_bias use_sliding_window truncate",
        lambda value: isinstance(value, bool),
        "true or false",
    ),
    **_fields("layer_types", lambda value: isinstance(value, list), "a list"),
    **_fields("rope_parameters rope_scaling", lambda value: isinstance(value, dict), "an object"),
}


def check_fields(settings: dict, nullable: Sequence[str], where: str) -> None:
    """Raise InputError where a field of a known form has another, or is null and not `nullable`; the others are passed over."""
    for name, value in settings.items():
        if name not in FORMS or (value is None and name in nullable):
            continue
        if value is None:
            raise InputError(f"{where}: config.json does not say {name!r}: it is null")
        fits, wanted = FORMS[name]
        if not fits(value):
            raise InputError(f"{where}: {name} in config.json is {repr(value)[:80]}, and has to be {wanted}")
