"""docs/config.md: every field of a config with its default and its meaning, read from the comments in kdjax/config.py.

python -m kdjax.reporting.config_page > docs/config.md
"""

import ast
import inspect
import io
import tokenize
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from kdjax import config

HEAD = """# Every field of a config

Any field can be set on the command line, as in `--config.train.epochs=2`. A misspelt one is an error that names the nearest.
A config in `configs/` sets a few of these fields and has its own defaults for them.
`DEFAULT_MODEL` is SmolLM2-135M-Instruct, in a wheel.

This page is generated from `kdjax/config.py`; write it anew with `python -m kdjax.reporting.config_page > docs/config.md`.
"""
TOP = "General"  # the heading of the fields that are in no section


class Field(NamedTuple):
    """A field or a section: its dotted name, its default as source text (None for a section), and its comment."""

    name: str
    default: str | None
    meaning: str


def read_fields(source: str) -> list[Field]:
    """The fields of the `create(...)` call that `base` returns, in their order. A comment belongs to the field whose lines it is on."""
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    function = next(
        node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == "base"
    )
    returned = next(node.value for node in function.body if isinstance(node, ast.Return))
    assert isinstance(returned, ast.Call)
    return list(_fields(returned, "", comments))


def _fields(call: ast.Call, prefix: str, comments: Mapping[int, str]) -> Iterator[Field]:
    for keyword in call.keywords:
        name, value = f"{prefix}{keyword.arg}", keyword.value
        if isinstance(value, ast.Call) and ast.unparse(value.func) == "create":
            yield Field(name, None, comments.get(value.lineno, ""))
            yield from _fields(value, f"{name}.", comments)
        else:
            lines = range(keyword.lineno, (value.end_lineno or value.lineno) + 1)
            yield Field(name, ast.unparse(value), " ".join(comments[line] for line in lines if line in comments))


def config_page(source: str) -> str:
    """The page as Markdown: a table of the fields without a section, then one per section."""
    fields = read_fields(source)
    parts = [HEAD, _table(TOP, "", [one for one in fields if "." not in one.name and one.default is not None])]
    for section in (one for one in fields if one.default is None):
        parts.append(
            _table(section.name, section.meaning, [one for one in fields if one.name.startswith(f"{section.name}.")])
        )
    return "\n".join(parts)


def _table(heading: str, meaning: str, fields: list[Field]) -> str:
    rows = [
        f"| `{one.name}` | `{one.default}` | {one.meaning.replace('|', chr(92) + '|').replace('<', '&lt;')} |"
        for one in fields
    ]
    intro = [f"{meaning[:1].upper()}{meaning[1:]}.", ""] if meaning else []
    return "\n".join([f"## {heading}", "", *intro, "| field | default | meaning |", "| --- | --- | --- |", *rows, ""])


if __name__ == "__main__":
    print(config_page(inspect.getsource(config)), end="")
