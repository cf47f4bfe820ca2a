"""How a session's products are written in a prompt, and which of its tokens are whose."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import unescape

from kdjax.data import Session, leaf_category
from kdjax.errors import InputError
from kdjax.sources import Tokenizer

FIELDS = ("title", "category")


@dataclass(frozen=True)
class ProductForm:
    """What a product's line holds: its title, and with "category" in `fields` its leaf category in brackets.

    `title_words` is the most words of a title; 0: all.
    """

    fields: tuple[str, ...] = ("title",)
    title_words: int = 0


PLAIN = ProductForm()


def product_list(session: Session, form: ProductForm = PLAIN) -> str:
    """One numbered product per line, `1. Title`; the numbers are the ones that an answer uses."""
    return "\n".join(number + text for number, text in _lines(session, form))


def _lines(session: Session, form: ProductForm) -> Iterator[tuple[str, str]]:
    """The number and the text of each line, without its end; a title may have line breaks of its own."""
    for number, (title, paths) in enumerate(zip(session.titles, session.categories, strict=True), start=1):
        title = unescape(title)  # titles from web pages are full of &amp; and &quot;, which cost tokens
        if form.title_words:
            title = " ".join(title.split()[: form.title_words])
        category = leaf_category(paths) if "category" in form.fields else None
        yield f"{number}. ", title + (f" ({unescape(category)})" if category else "")


def product_spans(
    tokenizer: Tokenizer,
    prompt: str,
    offsets: Sequence[tuple[int, int]],
    session: Session,
    form: ProductForm = PLAIN,
) -> tuple[tuple[int, int], ...]:
    """The tokens of each product's text in a prompt with the session's product list: (first, end), one token at least.

    `offsets` are where in the prompt each of its tokens begins and ends.

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
    for number, line in _lines(session, form):
        begin = at + len(number)
        at = begin + len(tokenizer.escape(line))
        first = min(bisect_right(ends, begin), bisect_left(begins, end_of_all) - 1)
        spans.append((first, max(bisect_left(begins, min(at, end_of_all)), first + 1)))
        at += len("\n")
    return tuple(spans)
