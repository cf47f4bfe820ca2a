"""The export job through launch.py: adapters of finished runs, for other programs."""

import json

import pytest
from gguf import GGUFReader
from safetensors.numpy import load_file

PARTS = {"lora_A": "lora_a", "lora_B": "lora_b"}


def command(adapter, form, out):
    return [
        "export.py",
        f"--config.student.adapter={adapter}",
        f"--config.export.format={form}",
        f"--config.export.out={out}",
    ]


def test_the_adapter_of_a_run_is_exported(finished, launch, tmp_path):
    adapter = finished[0] / "adapter"
    for form in ("gguf", "mlx"):
        process = launch(*command(adapter, form, tmp_path / form))
        assert process.returncode == 0 and str(tmp_path / form) in process.stdout, process.stderr[-3000:]
    tensors = load_file(adapter / "adapter_model.safetensors")
    assert len(tensors) == len(GGUFReader(tmp_path / "gguf").tensors)
    mlx = load_file(tmp_path / "mlx" / "adapters.safetensors")
    for name, array in tensors.items():
        path, part, _ = name.removeprefix("base_model.model.").rsplit(".", 2)
        assert (mlx.pop(f"{path}.{PARTS[part]}") == array.T).all()
    assert not mlx
    assert json.loads((tmp_path / "mlx" / "adapter_config.json").read_text())["fine_tune_type"] == "lora"


@pytest.mark.parametrize(
    "adapter, out, message",
    [
        ("", "x", "config.student.adapter is empty"),
        ("x", "", "config.export.out is empty"),
        ("/nowhere", "x", "/nowhere/adapter_config.json"),
    ],
)
def test_a_field_that_is_missing_is_named(launch, tmp_path, adapter, out, message):
    process = launch(*command(adapter, "gguf", out and tmp_path / out))
    assert process.returncode and message in process.stderr and "Traceback" not in process.stderr
    assert not any(tmp_path.iterdir())
