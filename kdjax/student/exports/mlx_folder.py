"""mlx-lm's adapter folder, read with `mlx_lm.generate --adapter-path`: adapters.safetensors and adapter_config.json.

mlx-lm gives the maps named by `keys`, in the last `num_layers` layers, one rank and one scale (`mlx_lm/tuner/utils.py`).
A map among them that is not in the file keeps a B of zeros, which changes nothing; so any choice of layers can be written.
"""

import math
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from kdjax.reporting.files import write_json
from kdjax.student.exports.adapter import Adapter

PARTS = {"lora_A": "lora_a", "lora_B": "lora_b", "lora_magnitude_vector": "m"}


def write_mlx_adapter(adapter: Adapter, folder: Path) -> None:
    """Write the folder. Matrices are transposed, lora_a [in, rank] and lora_b [rank, out]; DoRA's magnitudes are `m`.

    Raises:
        InputError: ranks or alphas differ between maps.
    """
    adapter.refuse({name: "mlx-lm gives all maps one rank and one scale" for name in ("rank_pattern", "alpha_pattern")})
    lora = adapter.lora
    tensors = {
        f"{path}.{PARTS[part]}": np.ascontiguousarray(array.T)  # safetensors writes views corrupted, without a word
        for path, parts in adapter.maps.items()
        for part, array in parts.items()
    }
    places = [path.split(".", 3) for path in adapter.maps]  # model, layers, number, path inside the layer
    settings = {
        "fine_tune_type": "dora" if lora.use_dora else "lora",
        "num_layers": adapter.config.num_hidden_layers - min(int(layer) for _, _, layer, _ in places),
        "lora_parameters": {
            "rank": lora.r,
            "scale": lora.lora_alpha / (math.sqrt(lora.r) if lora.use_rslora else lora.r),
            "dropout": lora.lora_dropout,
            "keys": sorted({inside for *_, inside in places}),
        },
    }
    folder.mkdir()
    save_file(tensors, folder / "adapters.safetensors", metadata={"format": "mlx"})
    write_json(folder / "adapter_config.json", settings)
