"""A model's chat template: which of its files and fields counts, and how it runs."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

from kdjax.errors import InputError

TEMPLATE_FILE, TEMPLATE_FOLDER = "chat_template.jinja", "additional_chat_templates"
# What templates take for today. A prompt must not change with the calendar, since it is trained on and its answers are
# kept. It is the date that Llama 3's own templates use where there is no clock.
TODAY = datetime(2024, 7, 26)


def template_files(folder: Path) -> list[Path]:
    """The files of a folder that hold chat templates, in the order in which a later one replaces an earlier one."""
    paths = [folder / TEMPLATE_FILE, *sorted((folder / TEMPLATE_FOLDER).glob("*.jinja"))]
    return [path for path in paths if path.is_file()]


def templates_of(folder: Path) -> dict[str, str]:
    """Name → template, out of a folder's template files; the one for plain conversations is named "default"."""
    found = {}
    for path in template_files(folder):
        try:
            found["default" if path.parent == folder else path.stem] = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: not UTF-8 text ({error})") from error
    return found


def default_template(chat_template: Any, where: str) -> str:
    """The template for plain conversations, out of a `chat_template` field: a text, or several by name."""
    if isinstance(chat_template, list):
        entries = [entry for entry in chat_template if isinstance(entry, dict)]
        chat_template = {entry.get("name"): entry.get("template") for entry in entries}
    if isinstance(chat_template, dict):
        chat_template = chat_template.get("default")
    if not chat_template or not isinstance(chat_template, str):
        raise InputError(f"{where}: the tokenizer has no chat template; use an instruct model")
    return chat_template


def compile_template(source: str) -> Template:
    """The template as transformers sets it up, except that the date is fixed.

    Raises:
        TemplateError: it is not a Jinja template.
    """
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_template_error
    environment.globals["strftime_now"] = TODAY.strftime
    with template_code():
        return environment.from_string(source)


@contextmanager
def template_code() -> Iterator[None]:
    """Turns every error of a chat template into a TemplateError: it is a program by strangers, in a sandbox."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        raise TemplateError(f"{type(error).__name__}: {error}") from error


class _Generation(Extension):
    """{% generation %} … {% endgeneration %} marks the assistant's words for a loss mask; the text stays as it is."""

    tags = {"generation"}  # noqa: RUF012, as in the base class

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_text"), [], [], body).set_lineno(line)

    def _text(self, caller) -> str:
        return caller()


def _to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False) -> str:
    """JSON without Jinja's escapes for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_template_error(message: str) -> None:
    raise TemplateError(message)
