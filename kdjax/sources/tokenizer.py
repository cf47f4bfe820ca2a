"""One tokenizer for training, evaluation and export, on `tokenizers` and jinja2 alone (AutoTokenizer would import torch)."""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import tokenizers
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from kdjax.errors import InputError
from kdjax.reporting.files import read_json
from kdjax.sources.files import ModelFiles
from kdjax.sources.folder import GENERATION, complete_end_tokens, end_tokens
from kdjax.sources.gguf_model import open_gguf, tokenizer_json

Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": …}
SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")  # that a chat template may write
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json")


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
    ):
        inner.no_padding()
        inner.no_truncation()
        self.inner, self.settings, self.eos_ids, self.where, self._files = (
            inner,
            settings,
            tuple(eos_ids),
            where,
            tuple(files),
        )

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
        for token in self._special:
            text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    @cached_property
    def _special(self) -> tuple[str, ...]:
        return tuple(token.content for token in self.inner.get_added_tokens_decoder().values() if token.special)

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = True) -> str:
        """A conversation as the text that the model was tuned on; contents are escaped.

        A template that refuses a system message (some model families have none) gets it at the head of the first user message.
        """
        try:
            return self._render(messages, add_generation_prompt)
        except TemplateError as error:
            if [message["role"] for message in messages[:2]] != ["system", "user"]:
                raise InputError(f"{self.where}: the chat template refuses the conversation: {error}") from error
        system, user, *rest = messages
        merged = {"role": "user", "content": f"{system['content']}\n\n{user['content']}"}
        return self.render([merged, *rest], add_generation_prompt)

    def _render(self, messages: Sequence[Message], add_generation_prompt: bool) -> str:
        template, escaped = self._template, [m | {"content": self.escape(m["content"])} for m in messages]
        with _template_code():
            return template.render(
                messages=escaped,
                add_generation_prompt=add_generation_prompt,
                tools=None,  # transformers defines both, and templates ask `is not none`
                documents=None,
                **{name: self.settings.get(name) or "" for name in SPECIAL_TOKENS},
            )

    @cached_property
    def _template(self):
        template = self.settings.get("chat_template")
        if isinstance(template, list):  # named templates; "default" is the one for plain conversations
            named = [entry for entry in template if isinstance(entry, dict) and entry.get("name") == "default"]
            template = named[0].get("template") if named else None
        if not template or not isinstance(template, str):
            raise InputError(f"{self.where}: the tokenizer has no chat template; use an instruct model")
        # As transformers sets it up, but without strftime_now: a prompt must not change with the calendar.
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = lambda value, **kwargs: json.dumps(value, ensure_ascii=False, **kwargs)
        environment.globals["raise_exception"] = _raise_template_error
        with _template_code():
            return environment.from_string(template)

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
        """Write tokenizer.json, tokenizer_config.json, the template and generation_config.json, for the end tokens, into
        `folder`, byte for byte as they came where they came as files."""
        folder.mkdir(parents=True, exist_ok=True)
        if self._files:
            for path in self._files:
                shutil.copyfile(path, folder / path.name)
        else:
            (folder / "tokenizer.json").write_text(tokenizer_json(self.inner), encoding="utf-8")
            settings = json.dumps(self.settings, ensure_ascii=False, indent=2, sort_keys=True)
            (folder / "tokenizer_config.json").write_text(settings, encoding="utf-8")
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
        return Tokenizer(inner, settings, [model.field("tokenizer.ggml.eos_token_id")], str(files.gguf))
    return read_tokenizer(files.folder)


def read_tokenizer(folder: Path, ends: bool = True) -> Tokenizer:
    """The tokenizer of a folder that holds tokenizer.json and tokenizer_config.json (a model, an adapter, a teacher cache).

    Its first end token is the tokenizer's own; the others are those at which transformers' `generate` ends. Without `ends` there
    may be none: nothing is generated with the tokenizer of a teacher cache, and earlier ones do not hold the ends.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise InputError(f"{folder}: tokenizer.json is missing (slow tokenizers are not read; save it with a fast one)")
    try:
        inner = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the tokenizers library raises bare Exception
        raise InputError(f"{path}: not a readable tokenizer ({error})") from error
    settings = _json_if_there(folder / "special_tokens_map.json") | _json_if_there(folder / "tokenizer_config.json")
    for name in SPECIAL_TOKENS:
        settings[name] = _text_of_token(settings.get(name), f"{folder}: {name}")
    if (folder / "chat_template.jinja").is_file():
        try:
            settings["chat_template"] = (folder / "chat_template.jinja").read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{folder / 'chat_template.jinja'}: not UTF-8 text ({error})") from error
    named = [inner.token_to_id(settings["eos_token"])] if settings["eos_token"] else []
    named += end_tokens(folder)
    ids = [i for i in named if i is not None]
    known = set(inner.get_vocab(with_added_tokens=True).values())
    if unknown := [i for i in ids if type(i) is not int or i not in known]:
        raise InputError(f"{folder}: eos_token_id {unknown[0]!r} is not the id of a token in tokenizer.json")
    ids = list(dict.fromkeys(ids))
    if ends and not ids:
        raise InputError(f"{folder}: no end-of-sequence token is named (eos_token in tokenizer_config.json)")
    files = [folder / name for name in (*TOKENIZER_FILES, GENERATION) if (folder / name).is_file()]
    return Tokenizer(inner, settings, ids, str(folder), files)


def _json_if_there(path: Path) -> dict:
    return read_json(path) if path.is_file() else {}


def _text_of_token(token: str | dict | None, where: str) -> str | None:
    """The text of a special token, which stands there by itself or in an object."""
    text = token.get("content", token) if isinstance(token, dict) else token
    if text is not None and not isinstance(text, str):
        raise InputError(f"{where} is {token!r}, and must be a text, or an object with its text as content")
    return text


@contextmanager
def _template_code() -> Iterator[None]:
    """Runs what a chat template says: a program by strangers, in a sandbox, whose every error is the template's."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        raise TemplateError(f"{type(error).__name__}: {error}") from error


def _raise_template_error(message: str) -> None:
    raise TemplateError(message)


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
