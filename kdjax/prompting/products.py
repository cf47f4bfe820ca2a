"""How a session's products are written in a prompt."""

from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape

from kdjax.data import Session, leaf_category

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
    return "\n".join(product_lines(session, form))


def product_lines(session: Session, form: ProductForm = PLAIN) -> Iterator[str]:
    """The lines of `product_list`, without their ends; a title may have line breaks of its own."""
    for number, (title, paths) in enumerate(zip(session.titles, session.categories, strict=True), start=1):
        title = unescape(title)  # titles from web pages are full of &amp; and &quot;, which cost tokens
        if form.title_words:
            title = " ".join(title.split()[: form.title_words])
        category = leaf_category(paths) if "category" in form.fields else None
        yield f"{number}. {title}" + (f" ({unescape(category)})" if category else "")
