"""Which files of a Hugging Face folder are the model: one answer for weights, digest, download, end tokens and copies.

The answer is transformers' own (5.x, `_get_resolved_checkpoint_files` and `GenerationConfig.from_pretrained`), so that a student
computes with the weights that a server loads from the same folder.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from kdjax.errors import InputError
from kdjax.reporting.files import read_json, write_json

CONFIG, GENERATION = "config.json", "generation_config.json"
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
# What decides a model's answers besides its weights. vocab.json and the processor's files are read by transformers alone, where
# a folder has no tokenizer.json or sees images; they count as they always have, so that recorded answers keep their digest.
SETTINGS = (
    *(CONFIG, GENERATION),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"),
    *("chat_template.jinja", "chat_template.json", "additional_chat_templates/default.jinja"),
    *("preprocessor_config.json", "processor_config.json"),
)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold the weights: model.safetensors, else the shards that the index names. No others count.

    Raises:
        InputError: there is neither, a file that is named is missing or outside the folder.
    """
    if os.path.lexists(folder / SINGLE):
        names = [SINGLE]
    elif (folder / INDEX).is_file():
        names = shards(folder)
    else:
        raise InputError(f"{folder}: {_what_is_there_instead(folder)}")
    for name in names:
        path = folder / name
        # os.path.isfile, unlike Path's, is False for a name that no file system takes.
        if path.parent != folder or not os.path.isfile(path):
            raise InputError(f"{folder}: the file {name} is not in the folder")
    return [folder / name for name in names]


def shards(folder: Path) -> list[str]:
    """The names of the files that the index of `folder` sends its tensors to.

    Raises:
        InputError: the index is not readable, or has another form.
    """
    weight_map = read_json(folder / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise InputError(f"{folder / INDEX}: weight_map must name a file for each tensor")
    return sorted(set(weight_map.values()))


def model_files(folder: Path) -> list[Path]:
    """The files that decide what the model answers, in the order of their names; anything else may come and go.

    Raises:
        InputError: as `weight_files`.
    """
    weights = weight_files(folder)
    index = [] if weights == [folder / SINGLE] else [folder / INDEX]
    settings = [folder / name for name in SETTINGS if (folder / name).is_file()]
    return sorted({*settings, *index, *weights})


def model_in_the_way(folder: Path) -> list[str]:
    """Names of files in `folder` that a loader would mix with those of a model written there."""
    return sorted(
        path.relative_to(folder).as_posix()
        for pattern in (*SETTINGS, INDEX, ADAPTER, "*.safetensors", "*.gguf")
        for path in folder.glob(pattern)
    )


def end_tokens(folder: Path) -> list:
    """The ids that end a turn in transformers' `generate`: generation_config.json's, and only where there is no such file
    config.json's (or its text_config's). They are as the file has them, not yet checked.
    """
    if (folder / GENERATION).is_file():
        return _as_list(read_json(folder / GENERATION).get("eos_token_id"))
    config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    nested = config.get("text_config")
    if config.get("eos_token_id") is None and isinstance(nested, dict):
        config = nested
    return _as_list(config.get("eos_token_id"))


def complete_end_tokens(folder: Path, eos_ids: Sequence[int], own: int | None) -> None:
    """See that a copy of a model, or of its tokenizer, names all end tokens, once its other files are written.

    `own` is the one that tokenizer_config.json names. The others may be left over in the original's config.json, which neither
    an adapter nor a teacher cache takes along, or in a GGUF file: they are written to generation_config.json.
    """
    if not set(eos_ids) <= {own, *end_tokens(folder)}:
        write_json(folder / GENERATION, {"eos_token_id": list(eos_ids) if len(eos_ids) > 1 else eos_ids[0]})


def _as_list(ids) -> list:
    return ids if isinstance(ids, list) else [] if ids is None else [ids]


def _what_is_there_instead(folder: Path) -> str:
    """Why a folder with a config.json has no weights."""
    others = sorted(path.name for path in folder.glob("*.safetensors"))
    if not others:
        return "config.json is there but no *.safetensors; weights in other formats are not read"
    return (
        f"neither {SINGLE} nor {INDEX} is there, and without them {', '.join(others[:3])} may be of any model; "
        f"rename a single file to {SINGLE}, or restore the index of the shards"
    )
