"""How a session's products are written in a prompt."""

from collections.abc import Iterator

from kdjax.data import Session


def product_list(session: Session) -> str:
    """One numbered title per line, `1. Title`; the numbers are the ones that an answer uses."""
    return "\n".join(product_lines(session))


def product_lines(session: Session) -> Iterator[str]:
    """The lines of `product_list`, without their ends; a title may have line breaks of its own."""
    for number, title in enumerate(session.titles, start=1):
        yield f"{number}. {title}"
