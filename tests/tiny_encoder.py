"""A sentence encoder with random weights: a BERT of two layers that transformers writes."""

from collections.abc import Sequence
from pathlib import Path

import torch
import transformers


def write_tiny_encoder(folder: Path, texts: Sequence[str]) -> None:
    """Write the Hugging Face folder; its vocabulary is the words of `texts`."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted({word for text in texts for word in text.split()})]
    (folder / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizerFast(vocab_file=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.BertConfig(vocab_size=len(words), initializer_range=1.0, **shape)
    transformers.BertModel(config).save_pretrained(folder)
