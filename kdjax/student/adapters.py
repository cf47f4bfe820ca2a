"""PEFT's adapter format in and out, and merged Hugging Face folders."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from kdjax.errors import InputError
from kdjax.reporting.files import read_json
from kdjax.sources import model_in_the_way, open_safetensors
from kdjax.student.lora_config import LINEAR_PATHS, LoraConfig
from kdjax.student.quantization import dequantize, is_quantized
from kdjax.student.weights_in import flat_items, tensor_names

PREFIX = "base_model.model."
SHARD_BYTES = 4 << 30
COMPUTED = (  # what read_lora_config takes from adapter_config.json
    *("peft_type", "r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "use_rslora", "use_dora"),
    *("rank_pattern", "alpha_pattern", "layers_to_transform", "layers_pattern", "bias", "init_lora_weights"),
)
HARMLESS = (  # where an adapter comes from, how it began and how it was run; every other field must be empty
    *("task_type", "base_model_name_or_path", "revision", "inference_mode", "auto_mapping", "peft_version"),
    *("megatron_core", "runtime_config", "qalora_group_size"),
    *("loftq_config", "eva_config", "corda_config", "lora_ga_config"),
)
HARMLESS_INITS = (
    True,
    False,
    None,
    "gaussian",
    "eva",
    "orthogonal",
)  # others (PiSSA, OLoRA, …) take a part out of the base


def save_adapter(folder: Path, adapter: dict, lora: LoraConfig, base_name: str) -> None:
    """Write adapter_config.json and adapter_model.safetensors, then read the file back and compare every tensor.

    `target_modules` are the maps written, by their names, or by their full paths where not every layer has them: PEFT drops in
    silence what the list does not name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = peft_tensors(adapter, lora)
    path = folder / "adapter_model.safetensors"
    save_file(tensors, path, metadata={"format": "pt"})
    with safe_open(path, framework="numpy") as written:
        for name, tensor in tensors.items():
            if not np.array_equal(written.get_tensor(name), tensor):
                raise OSError(f"{path}: tensor {name} reads back differently from what was written")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "revision": None,
        "r": lora.r,
        "lora_alpha": lora.lora_alpha,
        "lora_dropout": lora.lora_dropout,
        "target_modules": _targets(lora, _layers_of(adapter)),
        "use_rslora": lora.use_rslora,
        "use_dora": lora.use_dora,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
        "rank_pattern": dict(lora.rank_pattern),
        "alpha_pattern": dict(lora.alpha_pattern),
        "layers_to_transform": None,
        "layers_pattern": None,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def peft_tensors(adapter: dict, lora: LoraConfig) -> dict[str, np.ndarray]:
    """PEFT's key → array: base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight and so on, each of its own layer's rank.

    Arrays are contiguous copies: safetensors writes transposed or sliced views corrupted, without a word.
    """
    stacks = {path: np.asarray(stacked) for path, stacked in flat_items(adapter)}
    return {key: np.ascontiguousarray(stacks[path][index]) for key, path, index in _peft_keys(adapter, lora)}


def _peft_keys(adapter: dict, lora: LoraConfig) -> Iterator[tuple[str, tuple[str, ...], tuple]]:
    """(PEFT's key, path of the stack, index of the tensor in it), layer by layer; padding and layers without adapter are left out."""
    plans = lora.plans(_layers_of(adapter))
    for path, stacked in flat_items(adapter):
        ranks = plans[path[-2]].ranks
        for layer, name in enumerate(tensor_names(path, stacked.shape[0])):
            rows = slice(ranks[layer])
            if ranks[layer] and path[-1] == "lora_magnitude_vector":
                yield f"{PREFIX}{name}", path, (layer,)
            elif ranks[layer]:
                yield f"{PREFIX}{name}.weight", path, (layer, rows) if path[-1] == "lora_A" else (layer, ..., rows)


def _layers_of(stacked: dict) -> int:
    return jax.tree.leaves(stacked)[0].shape[0]


def _targets(lora: LoraConfig, layers: int) -> list[str]:
    plans = lora.plans(layers)
    adapted = {name: [layer for layer, rank in enumerate(plan.ranks) if rank] for name, plan in plans.items()}
    if all(len(where) in (0, layers) for where in adapted.values()):
        return sorted(name for name, where in adapted.items() if where)
    return [f"model.layers.{layer}.{LINEAR_PATHS[name]}" for name, where in sorted(adapted.items()) for layer in where]


def read_lora_config(folder: Path) -> LoraConfig:
    """The LoRA settings of an adapter folder.

    Raises:
        InputError: the file is missing or broken, or asks for something that is not computed here.
    """
    path = folder / "adapter_config.json"
    config = read_json(path)
    try:
        if config["peft_type"] != "LORA":
            raise InputError(f"peft_type {config['peft_type']!r} is not supported, only 'LORA'")
        for name in config.keys() - {*COMPUTED, *HARMLESS}:
            if config[name]:
                raise InputError(f"{name}={config[name]!r} is not supported")
        if config.get("target_modules") is None:
            raise InputError("target_modules is not given; which maps are adapted would be PEFT's guess")
        init = config.get("init_lora_weights", True)
        if init not in HARMLESS_INITS:
            raise InputError(f"init_lora_weights={init!r} is not supported: it belongs to a changed base")
        if config.get("bias", "none") != "none":
            raise InputError(f"bias={config['bias']!r} is not supported, only 'none'")
        if config.get("layers_pattern") not in (None, "", [], "layers", ["layers"]):  # the one list of layers there is
            raise InputError(f"layers_pattern={config['layers_pattern']!r} fits no layer")
        # PEFT's defaults, where a field is absent
        return LoraConfig(
            r=config.get("r", 8),
            lora_alpha=config.get("lora_alpha", 8),
            lora_dropout=config.get("lora_dropout", 0.0),
            target_modules=_strings(config["target_modules"]),
            exclude_modules=_strings(config.get("exclude_modules") or ()),
            use_rslora=False if config.get("use_rslora") is None else config["use_rslora"],
            use_dora=False if config.get("use_dora") is None else config["use_dora"],
            rank_pattern=config.get("rank_pattern") or {},
            alpha_pattern=config.get("alpha_pattern") or {},
            layers_to_transform=config.get("layers_to_transform"),
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a readable PEFT adapter config ({error!r})") from error


def _strings(value) -> str | tuple[str, ...]:
    if isinstance(value, str):
        return value
    if not all(isinstance(entry, str) for entry in value):
        raise TypeError(f"a list of names holds {value!r}")
    return tuple(sorted(value))


def load_adapter(folder: Path, abstract: dict, lora: LoraConfig) -> dict:
    """The adapter's arrays, float32, stacked over layers as `abstract` says, ranks that differ padded with zeros.

    Raises:
        InputError: a tensor is missing, unexpected, of another shape (PEFT itself would load the rest in silence) or not finite.
    """
    path = folder / "adapter_model.safetensors"
    if not path.is_file():
        raise InputError(f"{path}: missing; pickled adapters (.bin) are not read")
    tensors = _without_adapter_name(dict(open_safetensors(path)))
    stacks = {tree_path: np.zeros(leaf.shape, np.float32) for tree_path, leaf in flat_items(abstract)}
    slots = {key: stacks[tree_path][index] for key, tree_path, index in _peft_keys(abstract, lora)}
    if slots.keys() != tensors.keys():
        missing, unexpected = sorted(slots.keys() - tensors.keys())[:3], sorted(tensors.keys() - slots.keys())[:3]
        raise InputError(f"{path}: does not fit the model: missing {missing}, unexpected {unexpected}")
    for key, slot in slots.items():
        if tensors[key].shape != slot.shape:
            raise InputError(f"{path}: {key} has shape {tensors[key].shape}, expected {slot.shape}")
        if not np.isfinite(tensors[key]).all():
            raise InputError(f"{path}: {key} holds numbers that are not finite")
        slot[...] = tensors[key]
    return jax.tree.map_with_path(lambda p, _: jax.numpy.asarray(stacks[tuple(key.key for key in p)]), abstract)


def _without_adapter_name(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors by the keys that PEFT writes; those of a model that holds the adapter, under its name "default", are read, too.

    PEFT keeps such keys apart: q_proj.lora_A.default.weight and q_proj.lora_magnitude_vector.default.weight. A key whose plain
    form is there as well stays as it is, and so fits nothing.
    """
    plain = {key: re.sub(r"(?<=\.lora_[AB])\.default(?=\.weight$)|\.default(\.weight)?$", "", key) for key in tensors}
    return {key if plain[key] in tensors else plain[key]: tensor for key, tensor in tensors.items()}


def save_merged(folder: Path, base: dict, adapter: dict, lora: LoraConfig | None, config: dict) -> None:
    """Write config.json and (sharded) safetensors with the adapter added in, in the base's dtype; the sum is taken in float32.

    A quantised base is written dequantised: what the student computed with, at full size.
    """
    if there := model_in_the_way(folder):
        raise InputError(
            f"{folder} holds weights already, or other files of a model ({', '.join(there[:3])}), and a loader would mix "
            "them with these; choose an empty folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[dict[str, np.ndarray]] = [{}]
    room = SHARD_BYTES
    dtype = base["norm"]["weight"].dtype
    layers = _layers_of(base["layers"])
    for path, leaf in flat_items(base):
        update = _update_of(adapter, path[:-1], lora) if path[-1] == "weight" else None
        for layer, name in enumerate(tensor_names(path, layers)):
            tensor = _layer_of(leaf, layer) if path[0] == "layers" else np.asarray(leaf)
            if update is not None:
                tensor = update(layer, tensor.astype(np.float32))
            tensor = np.ascontiguousarray(tensor.astype(dtype))
            if tensor.nbytes > room and shards[-1]:
                shards.append({})
                room = SHARD_BYTES
            shards[-1][name] = tensor
            room -= tensor.nbytes
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = "model.safetensors" if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_file(shard, folder / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(shard, name)
    if len(shards) > 1:
        size = sum(tensor.nbytes for shard in shards for tensor in shard.values())
        index = {"metadata": {"total_size": size}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(
            json.dumps(index, indent=2, sort_keys=True), encoding="utf-8"
        )
    (folder / "config.json").write_text(
        json.dumps(config | {"dtype": str(dtype), "torch_dtype": str(dtype)}, indent=2, sort_keys=True),
        encoding="utf-8",
    )


def _layer_of(leaf, layer: int) -> np.ndarray:
    if is_quantized(leaf):
        return np.asarray(dequantize(leaf["codes"][layer], leaf["scales"][layer]))
    return np.asarray(leaf[layer])


def _update_of(adapter: dict, module: tuple[str, ...], lora: LoraConfig | None):
    """(layer, weight) → the weight with the adapter of the linear map at `module` in it, or None where it has no adapter."""
    for name in module:
        adapter = adapter.get(name, {})
    if "lora_A" not in adapter:
        return None
    assert lora is not None  # an adapter comes with its settings
    arrays = {name: np.asarray(array) for name, array in adapter.items()}
    plan = lora.plans(len(arrays["lora_A"]))[module[-1]]

    def add(layer: int, weight: np.ndarray) -> np.ndarray:
        if not plan.ranks[layer]:
            return weight
        weight = weight + plan.scales[layer] * (arrays["lora_B"][layer] @ arrays["lora_A"][layer])
        if lora.use_dora:
            weight *= (arrays["lora_magnitude_vector"][layer] / np.linalg.norm(weight, axis=1))[:, None]
        return weight

    return add
