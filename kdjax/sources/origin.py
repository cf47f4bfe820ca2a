"""Who published a base model, and on what terms, as far as its files say: for model cards."""

import re
from pathlib import Path

from kdjax.sources.files import DEFAULT_MODEL, HUB_NAME, ModelFiles
from kdjax.sources.gguf_model import open_gguf
from kdjax.sources.tiny import TINY

HUB_NAMES = {DEFAULT_MODEL: "HuggingFaceTB/SmolLM2-135M-Instruct"}  # of models that come from elsewhere
LICENSES = {TINY: "apache-2.0"}  # made here


def hub_name(files: ModelFiles) -> str:
    """The model's name on the Hugging Face hub, without a revision; "" where it is not known to have one."""
    if files.source in HUB_NAMES:
        return HUB_NAMES[files.source]
    name, _, _ = files.source.partition("@")
    is_hub_name = re.fullmatch(HUB_NAME, files.source) and files.folder != Path(files.source)
    return name if is_hub_name else ""


def license_of(files: ModelFiles) -> str:
    """The license by the hub's name for it ("apache-2.0"), from the GGUF file or the head of README.md; "" where none is stated."""
    if files.source in LICENSES:
        return LICENSES[files.source]
    if files.gguf:
        return str(open_gguf(files.gguf).metadata.fields.get("general.license", ""))
    readme = files.folder / "README.md"
    text = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else ""
    head = re.match(r"---\r?\n(.*?\n)---", text, re.DOTALL)
    stated = head and re.search(r"""^license:\s*["']?([\w.-]+)""", head[1], re.MULTILINE)
    return stated[1] if stated else ""
