"""Weights and config of a model, by Hugging Face's names, whatever the file format; read lazily, without torch."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from kdjax.errors import InputError
from kdjax.sources.files import ModelFiles
from kdjax.sources.gguf_model import open_gguf


class Weights(Mapping[str, np.ndarray]):
    """Tensor name → array, read from disk when asked for. bfloat16 comes as ml_dtypes' bfloat16."""

    def __init__(self, readers: dict[str, Callable[[], np.ndarray]]):
        self._readers = readers

    def __getitem__(self, name: str) -> np.ndarray:
        return self._readers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)


def read_config(files: ModelFiles) -> dict:
    """The model's config.json, or the same settings out of a GGUF file."""
    if files.gguf:
        return open_gguf(files.gguf).config()
    return _read_json(files.folder / "config.json")


def open_weights(files: ModelFiles) -> Weights:
    """All tensors of the model; shards are found through the index file and must all be there."""
    if files.gguf:
        return Weights(open_gguf(files.gguf).weights())
    index = files.folder / "model.safetensors.index.json"
    if index.is_file():
        weight_map = _read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
            raise InputError(f"{index}: weight_map must name a file for each tensor")
        shards = sorted(set(weight_map.values()))
    else:
        shards = sorted(path.name for path in files.folder.glob("*.safetensors"))
    readers = {}
    for shard in shards:
        path = files.folder / shard
        if path.parent != files.folder or not path.is_file():
            raise InputError(f"{index}: the shard {shard} is not in the folder")
        try:
            opened = safe_open(path, framework="numpy")
            names = opened.keys()
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path}: not a readable safetensors file ({error})") from error
        readers |= {name: lambda opened=opened, name=name: opened.get_tensor(name) for name in names}
    return Weights(readers)


def _read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content
