"""Weights from disk into the decoder's stacked arrays. The module tree has Hugging Face's names, so the map is the path itself."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import jax
import numpy as np

from kdjax.errors import InputError
from kdjax.sources import Weights
from kdjax.student.quantization import is_quantized, method_of, quantize, shape_of

IGNORED_SUFFIXES = ("rotary_emb.inv_freq",)  # a buffer that old checkpoints carry


def tensor_names(path: tuple[str, ...], layers: int) -> list[str]:
    """Hugging Face's tensor names behind one leaf of the decoder: one per layer where the leaf is stacked.

    ("layers", "self_attn", "q_proj", "weight") → model.layers.0.self_attn.q_proj.weight, …
    """
    if path[0] == "lm_head":
        return ["lm_head.weight"]
    if path[0] != "layers":
        return ["model." + ".".join(path)]
    return [f"model.layers.{layer}." + ".".join(path[1:]) for layer in range(layers)]


def check_names(abstract: dict, weights: Weights, layers: int, where: str) -> None:
    """Whether the file holds this decoder's tensors and no others; reads names alone.

    Raises:
        InputError: a tensor is missing, or is not part of this architecture; each is named.
    """
    wanted = {path: tensor_names(path, layers) for path, _ in flat_items(abstract)}
    expected = {name for names in wanted.values() for name in names}
    extra = {"lm_head.weight"} if ("lm_head", "weight") not in wanted else set()  # a tied head may be stored twice
    unexpected = sorted(
        name for name in weights if name not in expected | extra and not name.endswith(IGNORED_SUFFIXES)
    )
    missing = sorted(expected - set(weights))
    if missing or unexpected:
        raise InputError(f"{where}: tensors missing: {_some(missing)}; unexpected: {_some(unexpected)}")


Place = Callable[[Sequence[str], np.ndarray], jax.Array]  # (path of names, array) → the array on its devices


def load_base(abstract: dict, weights: Weights, layers: int, dtype, where: str, place: Place) -> dict:
    """Fill the decoder's base parameters, cast to `dtype`, and `place` each; quantised ones are quantised here, a layer at a time.

    Raises:
        InputError: a tensor has another shape. That all are there is for `check_names` to say, before.
    """
    tied = "lm_head" not in abstract and "lm_head.weight" in weights
    if tied and not np.array_equal(weights["lm_head.weight"], weights["model.embed_tokens.weight"]):
        raise InputError(
            f"{where}: lm_head.weight is not the embedding; set tie_word_embeddings to false in config.json"
        )

    def read(name: str, shape: tuple[int, ...]) -> np.ndarray:
        tensor = weights[name]
        if tensor.shape != shape:
            raise InputError(f"{where}: tensor {name} has shape {tensor.shape}, config.json asks for {shape}")
        return tensor

    def fill(path, leaf):
        path = tuple(key.key for key in path)
        names = tensor_names(path, layers)
        if is_quantized(leaf):
            method, shape = method_of(leaf), shape_of(leaf)[1:]
            parts = [quantize(read(name, shape), method) for name in names]
            return {part: place((*path, part), np.stack([layer[part] for layer in parts])) for part in leaf}
        layered = path[0] == "layers"
        tensors = (read(name, leaf.shape[layered:]) for name in names)
        first = next(tensors)  # before there is room for all: a size in config.json may be absurd
        stacked = np.empty(leaf.shape, dtype)
        for slot, tensor in zip(stacked if layered else [stacked], chain([first], tensors), strict=True):
            slot[...] = tensor
        return place(path, stacked)

    return jax.tree.map_with_path(fill, abstract, is_leaf=is_quantized)


def flat_items(tree: dict) -> Iterator[tuple[tuple[str, ...], jax.Array]]:
    """(path of names, leaf) for each leaf of a nested dict; a quantised weight is one leaf, the dict of its two arrays."""
    for path, leaf in jax.tree.leaves_with_path(tree, is_leaf=is_quantized):
        yield tuple(key.key for key in path), leaf


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "") or "none"
