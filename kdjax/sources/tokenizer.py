"""One tokenizer for training, evaluation and export, on `tokenizers` and jinja2 alone (AutoTokenizer would import torch)."""

import json
import re
import shutil
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import tokenizers
from jinja2 import Template, TemplateError

from kdjax.errors import InputError
from kdjax.sources.chat_template import (
    TEMPLATE_FILE,
    compile_template,
    default_template,
    template_code,
    template_files,
    templates_of,
)
from kdjax.sources.files import ModelFiles
from kdjax.sources.folder import CONFIG, GENERATION, complete_end_tokens, end_tokens
from kdjax.sources.gguf_model import open_gguf, tokenizer_json
from kdjax.sources.tokenizer_files import json_if_there, read_files

Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": …}
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    TEMPLATE_FILE,
    "special_tokens_map.json",
    "added_tokens.json",
)

MARKER = re.compile(r"[^\w\s].*\w.*[^\w\s]")  # <think>, [INST]; no word and no white space that a vocabulary adds


class Tokenizer:
    """Text ↔ token ids, and conversations → text by the model's own chat template.

    Special tokens come from the template's text, never from the tokenizer's post-processor: a BOS cannot be doubled.
    """

    def __init__(
        self,
        inner: tokenizers.Tokenizer,
        settings: dict,
        eos_ids: Sequence[int],
        where: str,
        files: Sequence[Path] = (),
        tokenizer_class: str | None = None,
    ):
        """`files` are what `save` copies; `tokenizer_class` is what their tokenizer_config.json must say without config.json."""
        inner.no_padding()
        inner.no_truncation()
        self.inner, self.settings, self.eos_ids, self.where = inner, settings, tuple(eos_ids), where
        self._files, self._tokenizer_class = tuple(files), tokenizer_class

    @property
    def eos_id(self) -> int:
        """The token that ends an assistant's turn."""
        return self.eos_ids[0]

    @property
    def eos_token(self) -> str:
        """The text of `eos_id`."""
        token = self.inner.id_to_token(self.eos_id)
        assert token is not None  # checked when the tokenizer was read
        return token

    @property
    def special_tokens(self) -> dict[str, str]:
        """The special tokens that have a name (bos_token, image_token, …), which a chat template may write by it."""
        return {name: text for name, text in self.settings.items() if name.endswith("_token") and isinstance(text, str)}

    @property
    def vocab_size(self) -> int:
        """Number of token ids, added tokens included."""
        return self.inner.get_vocab_size(with_added_tokens=True)

    @property
    def highest_id(self) -> int:
        """The highest token id; ids may have holes."""
        return max(self.inner.get_vocab(with_added_tokens=True).values())

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`; special tokens written out in the text become their ids, none is added."""
        return self.inner.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of `ids`."""
        return self.inner.decode(list(ids), skip_special_tokens=skip_special_tokens)

    def escape(self, text: str) -> str:
        """`text` with each written-out special token broken up by a space ("< |im_end|>"), so that it stays text.

        A product's title must not end the turn.
        """
        for token in self._written_by_template:
            text = text.replace(token, f"{token[0]} {token[1:]}" if len(token) > 1 else " ")
        return text

    @cached_property
    def _written_by_template(self) -> tuple[str, ...]:
        """Texts that would be markers in a conversation: special tokens, and other added ones in the chat template."""
        template = self.settings.get("chat_template") and default_template(self.settings["chat_template"], self.where)
        return tuple(
            token.content
            for token in self.inner.get_added_tokens_decoder().values()
            if token.special or (MARKER.fullmatch(token.content) and token.content in (template or ""))
        )

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = True, *, thinking: bool = False) -> str:
        """A conversation as the text that the model was tuned on; contents are escaped.

        `thinking` is the template's `enable_thinking`: reasoning models think before they answer unless it is False.

        A template that refuses a system message, or leaves it out, gets it at the head of the first user message.

        Raises:
            InputError: the template refuses the conversation, or some message is not in the text as it was said; names the
                template's file and the message.
        """
        conversations = [list(messages)]
        if [message["role"] for message in messages[:2]] == ["system", "user"]:
            system, user, *rest = messages
            merged = {"role": "user", "content": f"{system['content']}\n\n{user['content']}"}
            conversations.append([merged, *rest])
        fault = ""
        for conversation in conversations:
            try:
                text = self._render(conversation, add_generation_prompt, thinking)
            except TemplateError as error:
                fault = f"refuses the conversation: {error}"
                continue
            fault = self._difference(conversation, text)
            if not fault:
                return text
        raise InputError(f"{self._template_file}: the chat template {fault}")

    def _render(self, messages: Sequence[Message], add_generation_prompt: bool, thinking: bool = False) -> str:
        template, escaped = self._template, [m | {"content": self.escape(m["content"])} for m in messages]
        with template_code():
            return template.render(
                messages=escaped,
                add_generation_prompt=add_generation_prompt,
                enable_thinking=thinking,
                tools=None,  # transformers defines both, and templates ask `is not none`
                documents=None,
                **self.special_tokens,
            )

    def _difference(self, messages: Sequence[Message], text: str) -> str:
        """What a rendered text does to the messages; "" if it has them all, whole, once, and the turns in order.

        Templates may trim the white space around a message and put the system message anywhere (Mistral's v0.3 puts it
        into the last user message), and nothing else.
        """
        said = [self.escape(message["content"]).strip() for message in messages]
        at = 0
        for number, (message, content) in enumerate(zip(messages, said, strict=True), start=1):
            turn = message["role"] != "system"
            start = text.find(content, at if turn else 0)
            if start < 0:
                which = f"message {number} of {len(said)} ({message['role']})"
                return f"leaves out, moves or changes {which}: {_shortened(content)!r}"
            if turn:
                at = start + len(content)
        for content in dict.fromkeys(said):
            # A shorter text may be among the template's own words by chance.
            if "\n" in content and text.count(content) > sum(other.count(content) for other in said):
                return f"repeats a message: {_shortened(content)!r}"
        return ""

    @property
    def _template_file(self) -> str:
        """The file that holds the chat template, for messages about it."""
        names = {path.name: str(path) for path in self._files}
        return names.get("chat_template.jinja") or names.get("tokenizer_config.json") or self.where

    @cached_property
    def answer_padding(self) -> tuple[str, str]:
        """The white space that the template writes before and after an assistant's text, up to the end of the turn.

        Llama 2 has a space on either side, ChatML nothing. A template that writes no turn of an assistant, or anything
        but white space there, counts as nothing.
        """
        user, answer = {"role": "user", "content": "?"}, "[[1,2]]"
        try:
            prompt = self._render([user], add_generation_prompt=True)
            whole = self._render([user, {"role": "assistant", "content": answer}], add_generation_prompt=False)
        except TemplateError:
            return "", ""
        turn = whole[len(prompt) :] if whole.startswith(prompt) else ""
        before, found, rest = turn.partition(answer)
        after, ended, _ = rest.partition(self.eos_token)
        return before if found and before.isspace() else "", after if ended and after.isspace() else ""

    @cached_property
    def _template(self) -> Template:
        return compile_template(default_template(self.settings.get("chat_template"), self.where))

    def token_bytes(self) -> list[bytes | None]:
        """The bytes that each token id stands for; None for special tokens and unused ids. Index = token id."""
        byte_level = '"ByteLevel"' in json.dumps(json.loads(self.inner.to_str())["decoder"])
        vocabulary = self.inner.get_vocab(with_added_tokens=True)
        table: list[bytes | None] = [None] * (max(vocabulary.values()) + 1)
        special = {i for i, token in self.inner.get_added_tokens_decoder().items() if token.special}
        for token, i in vocabulary.items():
            if i not in special:
                table[i] = _bytes_of_byte_level(token) if byte_level else _bytes_of_sentencepiece(token)
        return table

    def save(self, folder: Path) -> None:
        """Write tokenizer.json, tokenizer_config.json, the templates and generation_config.json, for the end tokens, into
        `folder`, byte for byte as they came where they came as files.

        The one exception: where the model's config.json has a say in the tokenizer's class, the copy names the class.
        """
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "tokenizer_config.json"
        for path in self._files:
            target = folder / path.relative_to(self.where)
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, target)
        if not self._files:
            (folder / "tokenizer.json").write_text(tokenizer_json(self.inner), encoding="utf-8")
            config.write_text(_settings_text(self.settings), encoding="utf-8")
        elif self._tokenizer_class:
            settings = json_if_there(config) | {"tokenizer_class": self._tokenizer_class}
            config.write_text(_settings_text(settings), encoding="utf-8")
        eos_token = self.settings.get("eos_token")
        complete_end_tokens(folder, self.eos_ids, self.inner.token_to_id(eos_token) if eos_token else None)


def load_tokenizer(files: ModelFiles) -> Tokenizer:
    """The tokenizer that belongs to a model.

    Raises:
        InputError: tokenizer.json is missing or broken, or no end-of-turn token is named.
    """
    if files.gguf:
        model = open_gguf(files.gguf)
        inner, settings = model.tokenizer
        return Tokenizer(inner, settings, model.end_ids, str(files.gguf))
    return read_tokenizer(files.folder)


def read_tokenizer(folder: Path, ends: bool = True) -> Tokenizer:
    """The tokenizer of a folder that holds tokenizer.json and tokenizer_config.json (a model, an adapter, a teacher cache).

    Its first end token is the tokenizer's own; the others are those at which transformers' `generate` ends. Without `ends` there
    may be none: nothing is generated with the tokenizer of a teacher cache, and earlier ones do not hold the ends.
    """
    inner, settings, tokenizer_class = read_files(folder)
    if templates := templates_of(folder):
        settings["chat_template"] = templates
    named = [inner.token_to_id(settings["eos_token"])] if settings["eos_token"] else []
    named += end_tokens(folder)
    ids = [i for i in named if i is not None]
    known = set(inner.get_vocab(with_added_tokens=True).values())
    if unknown := [i for i in ids if type(i) is not int or i not in known]:
        file = folder / (GENERATION if (folder / GENERATION).is_file() else CONFIG)
        raise InputError(f"{file}: eos_token_id {unknown[0]!r} is not the id of a token in tokenizer.json")
    ids = list(dict.fromkeys(ids))
    if ends and not ids:
        raise InputError(f"{folder}: no end-of-sequence token is named (eos_token in tokenizer_config.json)")
    files = [path for name in (*TOKENIZER_FILES, GENERATION) if (path := folder / name).is_file()]
    files += [path for path in template_files(folder) if path not in files]
    return Tokenizer(inner, settings, ids, str(folder), files, tokenizer_class)


def _settings_text(settings: dict) -> str:
    return json.dumps(settings, ensure_ascii=False, indent=2, sort_keys=True)


def _shortened(text: str, most: int = 80) -> str:
    return text if len(text) <= most else f"{text[:most]}…"


def _bytes_of_sentencepiece(token: str) -> bytes:
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        return bytes([int(token[3:5], 16)])
    return token.replace("▁", " ").encode()


def _bytes_of_byte_level(token: str) -> bytes:
    if not all(character in _BYTE_OF_CHARACTER for character in token):
        return token.encode()  # an added token, written as plain text
    return b"".join(_BYTE_OF_CHARACTER[character] for character in token)


def _byte_level_alphabet() -> dict[str, bytes]:
    """GPT-2's printable character for each byte, inverted (openai/gpt-2 encoder.py, bytes_to_unicode)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): bytes([byte]) for byte in printable} | {
        chr(256 + i): bytes([byte]) for i, byte in enumerate(others)
    }


_BYTE_OF_CHARACTER = _byte_level_alphabet()
