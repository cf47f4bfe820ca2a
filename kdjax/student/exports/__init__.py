"""Trained adapters in the formats of programs that do not read PEFT's. A new format is one entry of `EXPORTS`."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from kdjax.errors import InputError
from kdjax.student.exports.adapter import Adapter, open_adapter
from kdjax.student.exports.gguf_file import write_gguf_adapter
from kdjax.student.exports.mlx_folder import write_mlx_adapter

__all__ = ["EXPORTS", "Adapter", "convert_adapter"]

EXPORTS: dict[str, Callable[[Adapter, Path], None]] = {
    "gguf": write_gguf_adapter,  # one file, for llama.cpp and what is built on it (Ollama, LM Studio)
    "mlx": write_mlx_adapter,  # a folder, for mlx-lm
}


def convert_adapter(folder: str | Path, form: str, out: str | Path, source: str = "") -> None:
    """Write the adapter in `folder` (PEFT's format) to `out`, in the form that EXPORTS names. The whole of it, or nothing.

    `source` names the base model, of which only the shape is read; "": the one that the adapter names.

    Raises:
        InputError: `out` is there already, the adapter cannot be read, or the form cannot hold it; says which setting is why.
    """
    if form not in EXPORTS:
        raise InputError(f"export.format={form!r} is not supported; choose from {', '.join(EXPORTS)}")
    out = Path(out)
    if out.exists():
        raise InputError(f"{out}: there is something already; name another export.out, or delete it")
    adapter = open_adapter(Path(folder), source)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".export-") as scratch:
        written = Path(scratch) / out.name
        EXPORTS[form](adapter, written)
        written.rename(out)
