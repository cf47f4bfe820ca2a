"""The process that runs a sentence encoder: `python -m kdjax.prompting.encoder_worker SETTINGS`.

It reads a JSON list of texts per line and writes a JSON list of unit vectors per line; all else it prints goes to stderr.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers

from kdjax.child import Parent

POOLING = Path("1_Pooling") / "config.json"  # where sentence-transformers says which states are taken


def main() -> None:
    """Load the encoder and answer lines until stdin closes."""
    folder, parent = Path(json.loads(sys.argv[1])["folder"]), Parent()
    local = {"local_files_only": True, "trust_remote_code": False}
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **local)
    model = transformers.AutoModel.from_pretrained(folder, **local).eval()
    pooling = json.loads((folder / POOLING).read_text("utf-8")) if (folder / POOLING).is_file() else {}
    first = bool(pooling.get("pooling_mode_cls_token"))
    for texts in parent:
        parent.send(encode(tokenizer, model, texts, first).tolist())


@torch.inference_mode()
def encode(tokenizer, model, texts: Sequence[str], first: bool) -> torch.Tensor:
    """Unit vectors [texts, width]: the state of the first token, or the mean over all real ones, as sentence-transformers pools them."""
    fed = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
    states = model(**fed).last_hidden_state
    real = fed["attention_mask"][..., None].to(states.dtype)
    pooled = states[:, 0] if first else (states * real).sum(dim=1) / real.sum(dim=1)
    return torch.nn.functional.normalize(pooled, dim=-1)


if __name__ == "__main__":
    main()
