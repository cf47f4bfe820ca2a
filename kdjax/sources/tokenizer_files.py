"""The tokenizer files of a model folder, read as transformers' AutoTokenizer reads them: tokens, flags, special tokens."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from kdjax.errors import InputError
from kdjax.reporting.files import read_json
from kdjax.sources.tokenizer_classes import CLASSES, class_name, library_errors, rebuilt

# Special tokens by name, in the order in which transformers adds those that are missing.
SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
TEXT_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")

# Fields of tokenizer_config.json that would change tokens or text, and that nothing here follows where they are set.
_NOT_FOLLOWED = {
    "auto_map": "the tokenizer is code in the folder, and none is run; take the field out to use tokenizer.json",
    "split_special_tokens": "special tokens would be read as text; set it to false",
    "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output": "decoding would lose spaces; set it to false",
    "fix_mistral_regex": "another pre-tokenizer than in tokenizer.json; save the tokenizer as transformers repairs it",
    "fast_tokenizer_files": "another file may be read than tokenizer.json; take the field out",
    "init_inputs": "arguments of a tokenizer's class; take the field out",
    "model_specific_special_tokens": "name them in extra_special_tokens",
    "trust_remote_code": "code of the folder is not run; take the field out",
}


def json_if_there(path: Path) -> dict:
    """The object in a JSON file; empty where there is no file."""
    return read_json(path) if path.is_file() else {}


def read_files(folder: Path) -> tuple[Tokenizer, dict[str, Any], str | None]:
    """The tokenizer of a folder, and tokenizer_config.json with each special token as its text.

    Third, the class that tokenizer_config.json must name where config.json is not there; None where it need not.

    Raises:
        InputError: a file is missing or broken, a field is not followed, or a token does not get the id it is given.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise InputError(f"{folder}: tokenizer.json is missing (slow tokenizers are not read; save it with a fast one)")
    with library_errors(f"{path}: not a readable tokenizer"):
        inner = Tokenizer.from_file(str(path))
    content, settings = read_json(path), json_if_there(folder / "tokenizer_config.json")
    _check_followed(folder, settings, content)
    byte_level = '"ByteLevel"' in path.read_text(encoding="utf-8")
    name = class_name(settings, json_if_there(folder / "config.json"), byte_level)
    alone = class_name(settings, {}, byte_level)
    inner = rebuilt(name, inner, content, settings, str(folder))
    _Special(folder, settings, content).add_to(inner, name)
    return inner, settings, None if CLASSES[name] is CLASSES.get(alone) else f"{name}Fast"


def _check_followed(folder: Path, settings: Mapping, content: Mapping) -> None:
    code = settings.get("auto_map")
    set_to = {**settings, "auto_map": code.get("AutoTokenizer") if isinstance(code, dict) else code}
    not_followed = {name: why for name, why in _NOT_FOLLOWED.items() if set_to.get(name)}
    if settings.get("clean_up_tokenization_spaces") and content["model"].get("type", "BPE") != "BPE":
        not_followed["clean_up_tokenization_spaces"] = "decoding would lose spaces; set it to false"
    for name, why in not_followed.items():
        raise InputError(f"{folder}: {name} in tokenizer_config.json is {settings[name]!r}: {why}")


class _Special:
    """What a folder says about special and added tokens. `settings` are brought into one form: texts by name."""

    def __init__(self, folder: Path, settings: dict[str, Any], content: Mapping):
        self.folder, self.settings, self.content = folder, settings, content
        self.declared: dict[int, AddedToken] = {}  # in the files beside tokenizer.json
        if "additional_special_tokens" in settings and not settings.get("extra_special_tokens"):
            settings["extra_special_tokens"] = settings.pop("additional_special_tokens")  # transformers 5's name
        self._name_extra()
        if "added_tokens_decoder" in settings:
            for i, fields in self._object("added_tokens_decoder", settings["added_tokens_decoder"]).items():
                self.declared[self._id("added_tokens_decoder", i)] = self._token(f"added_tokens_decoder {i}", fields)
        else:
            self._read_older_files()
        read = [self._token_or_text("extra_special_tokens", token) for token in self._unnamed()]
        self.extra = [token for token in read if token is not None]

    def _read_older_files(self) -> None:
        """special_tokens_map.json, which wins over tokenizer_config.json, and added_tokens.json."""
        older = json_if_there(self.folder / "special_tokens_map.json")
        extra = older.pop("extra_special_tokens", None)
        if isinstance(extra, list):
            extra = [*self._unnamed(), *extra]
        additional = older.pop("additional_special_tokens", None)
        if extra or (additional and "extra_special_tokens" not in self.settings):
            self.settings["extra_special_tokens"] = extra or additional
            self._name_extra()
        for name, value in older.items():
            self.settings[name] = value | {"special": True} if isinstance(value, dict) else value
        special = {self._text(name, self.settings.get(name)) for name in SPECIAL_TOKENS}
        special |= {self._text("extra_special_tokens", token) for token in self._unnamed()}
        for text, i in json_if_there(self.folder / "added_tokens.json").items():
            token = AddedToken(text, special=text in special, normalized=text not in special)
            self.declared[self._id("added_tokens.json", i)] = token

    def add_to(self, inner: Tokenizer, name: str) -> None:
        """Add the tokens to `inner`, a tokenizer of the class `name`, and leave the texts in the settings."""
        named = self._named(CLASSES[name].special)
        tokens = self._tokens()
        by_text = {token.content: token for token in tokens.values()}
        if (end := named.get("eos_token")) and str(end) not in by_text and inner.token_to_id(str(end)) is None:
            raise InputError(
                f"{self.folder}: eos_token {str(end)!r} is not a token of tokenizer.json; the model cannot write it"
            )
        named = {key: by_text.get(str(token), token) for key, token in named.items()}
        to_add: list[str | AddedToken] = [token for _, token in sorted(tokens.items())]
        listed = {token.content for token in [*tokens.values(), *inner.get_added_tokens_decoder().values()]}
        to_add += [token for token in [*named.values(), *self.extra] if str(token) not in listed]
        texts = {str(token) for token in named.values()}
        inner.add_tokens([self._special_if(token, str(token) in texts) for token in to_add])
        if CLASSES[name].plain_special_tokens:
            inner.add_tokens([AddedToken(str(token), special=True) for token in [*named.values(), *self.extra]])
        for i, token in self.declared.items():
            if inner.token_to_id(token.content) != i:
                raise InputError(
                    f"{self.folder}: {token.content!r} has the id {i} in added_tokens_decoder or added_tokens.json, "
                    f"and gets {inner.token_to_id(token.content)}, the next that is free"
                )
        self.settings |= {key: None for key in SPECIAL_TOKENS} | {key: str(token) for key, token in named.items()}

    def _tokens(self) -> dict[int, AddedToken]:
        """Id → token, those of tokenizer.json included unless added_tokens_decoder takes their place."""
        if "added_tokens_decoder" in self.settings:
            return self.declared
        stored = {token["id"]: token for token in self.content.get("added_tokens") or []}
        flags = {i: {name: token[name] for name in ("content", *TEXT_FLAGS)} for i, token in stored.items()}
        return self.declared | {i: AddedToken(**fields) for i, fields in flags.items()}

    def _named(self, defaults: Mapping[str, str | None]) -> dict[str, str | AddedToken]:
        """Special tokens by name: the usual names, then any other field that ends in _token and holds a text."""
        padding = self.content.get("padding")
        settings = ({"pad_token": padding["pad_token"]} if padding else {}) | dict(defaults) | self.settings
        others = [key for key, value in settings.items() if key.endswith("_token") and isinstance(value, str | dict)]
        keys = dict.fromkeys([*SPECIAL_TOKENS, *others])
        read = {key: self._token_or_text(key, settings.get(key)) for key in keys}
        return {key: token for key, token in read.items() if token is not None}

    def _name_extra(self) -> None:
        """Special tokens with names, which the field of the unnamed ones may hold instead, go to the settings."""
        if isinstance(extra := self.settings.get("extra_special_tokens"), dict):
            if short := [name for name in extra if not name.endswith("_token")]:
                raise InputError(f"{self.folder}: the name {short[0]!r} in extra_special_tokens must end in _token")
            self.settings |= self.settings.pop("extra_special_tokens")

    def _unnamed(self) -> list:
        """Special tokens without a name."""
        extra = self.settings.get("extra_special_tokens") or []
        if not isinstance(extra, list):
            raise InputError(f"{self.folder}: extra_special_tokens is {extra!r}, and must be a list of tokens")
        return extra

    def _token_or_text(self, name: str, value: Any) -> str | AddedToken | None:
        return self._token(name, value) if isinstance(value, dict) else self._text(name, value)

    def _text(self, name: str, value: Any) -> str | None:
        """The text of a special token, which stands by itself or in an object."""
        text = value.get("content", value) if isinstance(value, dict) else value
        if text is not None and not isinstance(text, str):
            raise InputError(
                f"{self.folder}: {name} is {text!r}, and must be a text, or an object with its text as content"
            )
        return text

    def _token(self, name: str, fields: Any) -> AddedToken:
        text = self._text(name, self._object(name, fields))
        flags = {key: value for key, value in fields.items() if key not in ("content", "__type", "id")}
        if unknown := [key for key, value in flags.items() if key not in TEXT_FLAGS or not isinstance(value, bool)]:
            raise InputError(
                f"{self.folder}: {name} has {unknown[0]}={flags[unknown[0]]!r}, which is no flag of a token"
            )
        return AddedToken(text, **flags)

    def _object(self, name: str, value: Any) -> dict:
        if not isinstance(value, dict):
            raise InputError(f"{self.folder}: {name} is {value!r}, and must be an object")
        return value

    def _id(self, name: str, value: Any) -> int:
        if isinstance(value, bool) or not str(value).isdecimal():
            raise InputError(f"{self.folder}: {value!r} in {name} is no token id")
        return int(value)

    @staticmethod
    def _special_if(token: str | AddedToken, named: bool) -> AddedToken:
        if isinstance(token, str):
            return AddedToken(token, special=True)
        if named:
            token.special = True
        return token
