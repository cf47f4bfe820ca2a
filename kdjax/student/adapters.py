"""PEFT's adapter format in and out, and merged Hugging Face folders."""

import json
from pathlib import Path

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from kdjax.errors import InputError
from kdjax.student.lora import LoraConfig
from kdjax.student.weights_in import flat_items, tensor_names

PREFIX = "base_model.model."
SHARD_BYTES = 4 << 30
HARMLESS_INITS = (True, False, "gaussian", "eva", "orthogonal")  # others (PiSSA, OLoRA, …) take a part out of the base


def save_adapter(folder: Path, adapter: dict, lora: LoraConfig, base_name: str) -> None:
    """Write adapter_config.json and adapter_model.safetensors, then read the file back and compare every tensor.

    `target_modules` are the layers written: PEFT drops in silence what the list does not name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = peft_tensors(adapter)
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
        "target_modules": sorted(lora.modules()),
        "use_rslora": lora.use_rslora,
        "use_dora": False,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
        "rank_pattern": {},
        "alpha_pattern": {},
        "layers_to_transform": None,
        "layers_pattern": None,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def peft_tensors(adapter: dict) -> dict[str, np.ndarray]:
    """PEFT's key → array: base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight and so on.

    Arrays are contiguous copies: safetensors writes transposed or sliced views corrupted, without a word.
    """
    tensors = {}
    for path, stacked in flat_items(adapter):
        arrays = np.asarray(stacked)
        for layer, name in enumerate(tensor_names(path, len(arrays))):
            tensors[f"{PREFIX}{name}.weight"] = np.ascontiguousarray(arrays[layer])
    return tensors


def read_lora_config(folder: Path) -> LoraConfig:
    """The LoRA settings of an adapter folder.

    Raises:
        InputError: the file is missing or broken, or asks for something that is not computed here.
    """
    path = folder / "adapter_config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if config["peft_type"] != "LORA":
            raise InputError(f"{path}: peft_type {config['peft_type']!r} is not supported, only 'LORA'")
        absent = (
            "use_dora",
            "rank_pattern",
            "alpha_pattern",
            "layers_to_transform",
            "modules_to_save",
            "fan_in_fan_out",
            "alora_invocation_tokens",
            "use_qalora",
        )
        for name in absent:
            if config.get(name):
                raise InputError(f"{path}: {name}={config[name]!r} is not supported")
        init = config.get("init_lora_weights", True)
        if init not in HARMLESS_INITS:
            raise InputError(f"{path}: init_lora_weights={init!r} is not supported: it belongs to a changed base")
        if config.get("bias", "none") != "none":
            raise InputError(f"{path}: bias={config['bias']!r} is not supported, only 'none'")
        targets = config["target_modules"]
        if not isinstance(
            targets, str
        ):  # PEFT writes "all-linear" as full paths; `load_adapter` checks which are there
            targets = sorted({name.rsplit(".", 1)[-1] for name in targets})
        # PEFT's defaults, where a field is absent
        return LoraConfig(
            r=config.get("r", 8),
            lora_alpha=config.get("lora_alpha", 8),
            lora_dropout=config.get("lora_dropout", 0.0),
            target_modules=targets,
            use_rslora=config.get("use_rslora", False),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a readable PEFT adapter config ({error!r})") from error


def load_adapter(folder: Path, abstract: dict) -> dict:
    """The adapter's arrays, float32, stacked over layers as `abstract` says.

    Raises:
        InputError: a tensor is missing, unexpected or of another shape (PEFT itself would load the rest in silence).
    """
    path = folder / "adapter_model.safetensors"
    if not path.is_file():
        raise InputError(f"{path}: missing; pickled adapters (.bin) are not read")
    try:
        with safe_open(path, framework="numpy") as file:
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise InputError(f"{path}: not a readable safetensors file ({error})") from error
    expected = {
        f"{PREFIX}{name}.weight"
        for tree_path, leaf in flat_items(abstract)
        for name in tensor_names(tree_path, leaf.shape[0])
    }
    if expected != set(tensors):
        missing, unexpected = sorted(expected - set(tensors))[:3], sorted(set(tensors) - expected)[:3]
        raise InputError(f"{path}: does not fit the model: missing {missing}, unexpected {unexpected}")

    def stack(tree_path, leaf):
        names = tensor_names(tuple(key.key for key in tree_path), leaf.shape[0])
        parts = [tensors[f"{PREFIX}{name}.weight"].astype(np.float32) for name in names]
        for name, part in zip(names, parts, strict=True):
            if part.shape != leaf.shape[1:]:
                raise InputError(f"{path}: {name} has shape {part.shape}, expected {leaf.shape[1:]}")
        return jax.numpy.asarray(np.stack(parts))

    return jax.tree.map_with_path(stack, abstract)


def save_merged(folder: Path, base: dict, adapter: dict, lora: LoraConfig | None, config: dict) -> None:
    """Write config.json and (sharded) safetensors with W + scaling · B A, in the base's dtype; the sum is taken in float32."""
    if any(folder.glob("model*.safetensors")):
        raise InputError(
            f"{folder} holds weights already, and a loader would mix them with these; choose an empty folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[dict[str, np.ndarray]] = [{}]
    room = SHARD_BYTES
    for path, leaf in flat_items(base):
        arrays, update = np.asarray(leaf), _update_of(adapter, path[:-1], lora)
        if path[0] != "layers":
            arrays = arrays[None]
        for layer, name in enumerate(tensor_names(path, len(arrays))):
            tensor = arrays[layer]
            if update is not None and path[-1] == "weight":
                tensor = (tensor.astype(np.float32) + update(layer)).astype(tensor.dtype)
            if tensor.nbytes > room and shards[-1]:
                shards.append({})
                room = SHARD_BYTES
            shards[-1][name] = np.ascontiguousarray(tensor)
            room -= tensor.nbytes
    weight_map = {}
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
    dtype = str(jax.tree.leaves(base)[0].dtype)
    (folder / "config.json").write_text(
        json.dumps(config | {"dtype": dtype, "torch_dtype": dtype}, indent=2, sort_keys=True), encoding="utf-8"
    )


def _update_of(adapter: dict, module: tuple[str, ...], lora: LoraConfig | None):
    """layer → scaling · B A of the linear map at `module`, or None where it has no adapter."""
    for name in module:
        adapter = adapter.get(name, {})
    if "lora_A" not in adapter:
        return None
    a, b = np.asarray(adapter["lora_A"]), np.asarray(adapter["lora_B"])
    return lambda layer: lora.scaling * (b[layer] @ a[layer])
