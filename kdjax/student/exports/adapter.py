"""The adapter that is exported, map by map, whatever the format."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdjax.errors import InputError
from kdjax.reporting.files import read_json
from kdjax.sources import read_config, resolve
from kdjax.student.adapters import PREFIX, peft_tensors
from kdjax.student.families import FAMILIES, DecoderConfig, Family, architecture_of
from kdjax.student.lora_config import LoraConfig
from kdjax.student.pair_head import PAIR_HEAD
from kdjax.student.student import read_adapter


@dataclass(frozen=True)
class Adapter:
    """An adapter on disk and the shape of its base.

    `maps`: path of a linear map, model.layers.0.self_attn.q_proj, → its arrays: lora_A [rank, in], lora_B [out, rank] and,
    with DoRA, lora_magnitude_vector [out].
    """

    folder: Path
    lora: LoraConfig
    config: DecoderConfig
    family: Family
    maps: Mapping[str, Mapping[str, np.ndarray]]

    def refuse(self, settings: Mapping[str, str]) -> None:
        """Raise an InputError for the first of these settings of `lora` that is set; the values are the reasons."""
        for name, reason in settings.items():
            if value := getattr(self.lora, name):
                raise InputError(
                    f"{self.folder}: {name}={value!r} cannot be exported: {reason}. Serve the model merged instead: "
                    "kdjax.student.load_student(…).save_merged(folder)"
                )


def open_adapter(folder: Path, source: str = "") -> Adapter:
    """Read an adapter folder in PEFT's format; `source` names its base, "": as the adapter does.

    Raises:
        InputError: it cannot be read, does not fit the base, or judges pairs of products instead of writing.
    """
    if (folder / PAIR_HEAD).is_file():
        raise InputError(
            f"{folder}: this student judges pairs of products with {PAIR_HEAD}, which no other program computes, and was not "
            "trained to write; export one that was trained with config.student.answer='text'"
        )
    named = source or read_json(folder / "adapter_config.json").get("base_model_name_or_path")
    if not named or not isinstance(named, str):
        raise InputError(f"{folder}: adapter_config.json names no base model; name it in config.student.source")
    config, lora, arrays = read_adapter(folder, named)
    maps: dict[str, dict[str, np.ndarray]] = {}
    for key, array in peft_tensors(arrays, lora).items():
        path, _, part = key.removeprefix(PREFIX).removesuffix(".weight").rpartition(".")
        maps.setdefault(path, {})[part] = array
    family = FAMILIES[architecture_of(read_config(resolve(named)), named)]
    return Adapter(folder, lora, config, family, maps)
