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

        A template that refuses a system message, leaves it out or moves it gets it at the head of the first user message.

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
                text = self._render(conversation, add_generation_prompt)
            except TemplateError as error:
                fault = f"refuses the conversation: {error}"
                continue
            fault = self._difference(conversation, text)
            if not fault:
                return text
        raise InputError(f"{self._template_file}: the chat template {fault}")

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

    def _difference(self, messages: Sequence[Message], text: str) -> str:
        """What a rendered text does to the messages, "" if they all stand in it, whole, once and in order.

        Templates may trim the white space around a message, and nothing else.
        """
        said = [self.escape(message["content"]).strip() for message in messages]
        at = 0
        for number, (message, content) in enumerate(zip(messages, said, strict=True), start=1):
            start = text.find(content, at)
            if start < 0:
                which = f"message {number} of {len(said)} ({message['role']})"
                return f"leaves out, moves or changes {which}: {_shortened(content)!r}"
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
        """Write tokenizer.json, tokenizer_config.json and the template into `folder`, byte for byte as they came where
        they came as files."""
        folder.mkdir(parents=True, exist_ok=True)
        if self._files:
            for path in self._files:
                shutil.copyfile(path, folder / path.name)
        else:
            (folder / "tokenizer.json").write_text(tokenizer_json(self.inner), encoding="utf-8")
            settings = json.dumps(self.settings, ensure_ascii=False, indent=2, sort_keys=True)
            (folder / "tokenizer_config.json").write_text(settings, encoding="utf-8")


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


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a folder that holds tokenizer.json and tokenizer_config.json (a model, an adapter, a teacher cache)."""
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
    for config in ("generation_config.json", "config.json"):
        more = _json_if_there(folder / config).get("eos_token_id")
        named += more if isinstance(more, list) else [more]
    ids = [i for i in named if i is not None]
    known = set(inner.get_vocab(with_added_tokens=True).values())
    if unknown := [i for i in ids if type(i) is not int or i not in known]:
        raise InputError(f"{folder}: eos_token_id {unknown[0]!r} is not the id of a token in tokenizer.json")
    ids = list(dict.fromkeys(ids))
    if not ids:
        raise InputError(f"{folder}: no end-of-sequence token is named (eos_token in tokenizer_config.json)")
    return Tokenizer(
        inner, settings, ids, str(folder), [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
    )


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
