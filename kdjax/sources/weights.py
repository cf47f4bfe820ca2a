"""Weights and config of a model, by Hugging Face's names, whatever the file format; read lazily, without torch."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from kdjax.errors import InputError
from kdjax.reporting.files import read_json
from kdjax.sources.files import ModelFiles
from kdjax.sources.folder import CONFIG, SINGLE, weight_files
from kdjax.sources.gguf_model import open_gguf

FLOATS = ("F64", "F32", "F16", "BF16")  # by safetensors' names: what weights may be stored as


class Weights(Mapping[str, np.ndarray]):
    """Tensor name → array, read from disk when asked for. bfloat16 comes as ml_dtypes' bfloat16."""

    def __init__(self, readers: dict[str, Callable[[], np.ndarray]]):
        self.readers = readers

    def __getitem__(self, name: str) -> np.ndarray:
        return self.readers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self.readers)

    def __len__(self) -> int:
        return len(self.readers)


def read_config(files: ModelFiles) -> dict:
    """The model's config.json, or the same settings out of a GGUF file."""
    if files.gguf:
        return open_gguf(files.gguf).config()
    return read_json(files.folder / CONFIG)


def open_weights(files: ModelFiles) -> Weights:
    """All tensors of the model.

    Raises:
        InputError: a file is missing or broken, a tensor is in two of them, or config.json names other files.
    """
    if files.gguf:
        return Weights(open_gguf(files.gguf).weights())
    if named := read_config(files).get("transformers_weights"):
        raise InputError(
            f"{files.folder}: config.json says transformers_weights={named!r}; rename that file to {SINGLE}"
        )
    readers: dict[str, Callable[[], np.ndarray]] = {}
    for path in weight_files(files.folder):
        opened = open_safetensors(path).readers
        if twice := sorted(opened.keys() & readers.keys()):
            raise InputError(
                f"{path}: tensor {twice[0]} is in another shard, too; which of the two is meant is not said"
            )
        readers |= opened
    return Weights(readers)


def open_safetensors(path: Path) -> Weights:
    """The tensors of one file.

    Raises:
        InputError: the file is missing or broken; when a tensor is read, that it holds no floating-point numbers.
    """
    try:
        opened = safe_open(path, framework="numpy")
        names = opened.keys()
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error})") from error

    def read(name: str) -> np.ndarray:
        kind = opened.get_slice(name).get_dtype()
        if kind not in FLOATS:
            raise InputError(f"{path}: tensor {name} is stored as {kind}; only {', '.join(FLOATS)} are read")
        return opened.get_tensor(name)

    return Weights({name: partial(read, name) for name in names})
