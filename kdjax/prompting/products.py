"""How a session's products are written in a prompt, and which of its tokens are whose."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import unescape

from kdjax.data import Session, category_names, leaf_category
from kdjax.errors import InputError
from kdjax.sources import Tokenizer

FIELDS = ("title", "category", "categories")
Span = tuple[int, int]  # of tokens: first, end


@dataclass(frozen=True)
class ProductForm:
    """What a product's line contains: its title, followed by the other `fields` in brackets, in their order.

    "category" is the leaf category; "categories" are the names on all category paths without the first of each, which is only
    the department. `title_words` is the maximum number of words of a title; 0: all.
    """

    fields: tuple[str, ...] = ("title",)
    title_words: int = 0


PLAIN = ProductForm()


def product_list(session: Session, form: ProductForm = PLAIN) -> str:
    """One numbered product per line, `1. Title`; the numbers are the ones that an answer uses."""
    return "\n".join("".join(line) for line in _lines(session, form))


def _lines(session: Session, form: ProductForm) -> Iterator[tuple[str, ...]]:
    """For each line its number and the texts of its fields, "" for a field without content; a title may contain line breaks."""
    for number, (title, paths) in enumerate(zip(session.titles, session.categories, strict=True), start=1):
        title = unescape(title)  # titles from web pages are full of &amp; and &quot;, which cost tokens
        if form.title_words:
            title = " ".join(title.split()[: form.title_words])
        told = {"title": title, "category": _bracketed(leaf_category(paths) or "")}
        told["categories"] = _bracketed(", ".join(category_names(paths)))
        yield f"{number}. ", *(told[field] for field in form.fields)


def _bracketed(text: str) -> str:
    return f" ({unescape(text)})" if text else ""


def product_spans(
    tokenizer: Tokenizer,
    prompt: str,
    offsets: Sequence[tuple[int, int]],
    session: Session,
    form: ProductForm = PLAIN,
) -> tuple[tuple[Span, ...], ...]:
    """The tokens of each product's fields in a prompt with the session's product list.

    A title has one token at least, another field none where there is nothing to tell. `offsets` are where in the prompt each
    of its tokens begins and ends; a token of two fields counts as the first's.

    Raises:
        InputError: the list does not stand in the prompt as it was given.
    """
    text = tokenizer.escape(product_list(session, form)).rstrip()  # as templates that trim a message leave it
    at = prompt.rfind(text)
    if at < 0:
        raise InputError(
            f"{tokenizer.where}: the chat template changes what a user writes, so products cannot be found"
        )
    end_of_all = at + len(text)
    begins, ends = [begin for begin, _ in offsets], [end for _, end in offsets]
    spans = []
    for number, title, *others in _lines(session, form):
        at += len(number)
        first = min(bisect_right(ends, at), bisect_left(begins, end_of_all) - 1)
        at += len(tokenizer.escape(title))
        parts = [(first, max(bisect_left(begins, min(at, end_of_all)), first + 1))]
        for text in others:
            at += len(tokenizer.escape(text))
            done = parts[-1][1]
            parts.append((done, max(bisect_left(begins, min(at, end_of_all)), done)))
        spans.append(tuple(parts))
        at += len("\n")
    return tuple(spans)
