"""Llama-2-chat and Mistral-7B-Instruct, small: templates of their form, tokenizers of their kind, random weights."""

import json
import string
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from kdjax.sources.tiny import write_tiny_model

ALTERNATE = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}{% endfor %}"
)
LLAMA_2 = (
    "{% if messages[0].role == 'system' %}{% set system = '<<SYS>>\n' + messages[0].content + '\n<</SYS>>\n\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    + ALTERNATE
    + "{% for m in messages %}"
    "{% if m.role == 'user' %}{{ bos_token + '[INST] ' + ((system if loop.first else '') + m.content).strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)


def mistral(answer: str) -> str:
    """Raises on a system message, since roles have to alternate."""
    turn = "{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}{% else %}{{ " + answer + " }}{% endif %}"
    return "{{ bos_token }}" + ALTERNATE + "{% for m in messages %}" + turn + "{% endfor %}"


# The system message goes to the last user message: with demonstrations, that is another place than it was given.
MISTRAL_3 = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set system = messages[0].content + '\n\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    + ALTERNATE
    + "{% for m in messages %}"
    "{% if m.role == 'user' %}{{ '[INST]' + ' ' + (system if loop.last else '') + m.content + '[/INST]' }}"
    "{% else %}{{ ' ' + m.content | trim + eos_token }}{% endif %}{% endfor %}"
)
# family → (template, more special tokens, what the template writes before and after an answer)
FAMILIES = {
    "Llama 2": (LLAMA_2, (), (" ", " ")),
    "Mistral 0.1": (mistral("m.content + eos_token + ' '"), (), ("", "")),
    "Mistral 0.2": (mistral("' ' + m.content + eos_token"), (), (" ", "")),
    "Mistral 0.3": (MISTRAL_3, ("[INST]", "[/INST]"), (" ", "")),
}
# As tokenizer.json says it since transformers 4.43, and before: a space at the very first word, or after each special token.
SPACES = ("first", "legacy")
VOCABULARY = 400


def write_tokenizer(folder: Path, family: str, spaces: str = "first", template: str | None = None) -> Path:
    """tokenizer.json and tokenizer_config.json. As in the real vocabularies, "][" and "▁[[" are tokens."""
    special = ["<unk>", "<s>", "</s>", *FAMILIES[family][1]]
    merges = [("]", "["), ("]", "]"), ("▁", "["), ("▁[", "["), ("[", "[")]
    pieces = ["▁", *string.ascii_letters, *string.digits, *string.punctuation, *map("".join, merges)]
    vocab = dict.fromkeys([*special, *(f"<0x{byte:02X}>" for byte in range(256)), *pieces])
    tokenizer = Tokenizer(
        models.BPE({t: i for i, t in enumerate(vocab)}, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    if spaces == "legacy":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=spaces, split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast"}
    settings["chat_template"] = FAMILIES[family][0] if template is None else template
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def write_model(folder: Path, family: str, spaces: str = "first") -> Path:
    """The tokenizer with the tiny model's layers, and embeddings for its vocabulary."""
    write_tiny_model(folder)
    write_tokenizer(folder, family, spaces)
    tensors = load_file(folder / "model.safetensors")
    name = "model.embed_tokens.weight"
    hidden = tensors[name].shape[1]
    tensors[name] = np.random.default_rng(0).normal(0, hidden**-0.5, (VOCABULARY, hidden)).astype(np.float32)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": VOCABULARY}))
    return folder
