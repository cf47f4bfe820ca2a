"""llama.cpp's LoRA format: one GGUF file, read with `llama-cli -m base.gguf --lora adapter.gguf` or Ollama's ADAPTER.

llama.cpp scales every update by adapter.lora.alpha / (the rank of the pair of tensors); it knows no other scale. The layout
is that of its convert_lora_to_gguf.py and src/llama-adapter.cpp.
"""

import math
from pathlib import Path

from kdjax.errors import InputError
from kdjax.sources.gguf_model import LAYER_NAMES, REORDERED, to_ggml_rows
from kdjax.student.exports.adapter import Adapter

NAMES = {path: name for name, path in LAYER_NAMES.items()}  # path inside a layer → llama.cpp's name


def write_gguf_adapter(adapter: Adapter, path: Path) -> None:
    """Write the file `path`; tensors are float32.

    Raises:
        InputError: the adapter has what llama.cpp does not compute.
    """
    from gguf import GGUFType, GGUFWriter, Keys  # only here: it takes a while to import

    lora, config, architecture = adapter.lora, adapter.config, adapter.family.gguf
    adapter.refuse({"use_dora": "llama.cpp has no DoRA", "alpha_pattern": "a GGUF adapter has one alpha"})
    if lora.use_rslora:
        adapter.refuse({"rank_pattern": "with use_rslora each rank needs its own alpha, and a GGUF adapter has one"})
    if not architecture:
        raise InputError(f"{adapter.folder}: llama.cpp's name of the base's architecture is not known")
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    writer = GGUFWriter(path, architecture)
    writer.add_type(GGUFType.ADAPTER)
    writer.add_string(Keys.Adapter.TYPE, "lora")
    writer.add_float32(Keys.Adapter.LORA_ALPHA, lora.lora_alpha * (math.sqrt(lora.r) if lora.use_rslora else 1.0))
    for place, parts in adapter.maps.items():
        _, _, layer, inside = place.split(".", 3)
        name, b = NAMES[inside], parts["lora_B"]
        if architecture in REORDERED and name in heads:
            b = to_ggml_rows(b, heads[name])
        writer.add_tensor(f"blk.{layer}.{name}.weight.lora_a", parts["lora_A"])
        writer.add_tensor(f"blk.{layer}.{name}.weight.lora_b", b)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
