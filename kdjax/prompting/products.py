"""How a session's products are written in a prompt."""

from kdjax.data import Session


def product_list(session: Session) -> str:
    """One numbered title per line, `1. Title`; the numbers are the ones that an answer uses."""
    return "\n".join(f"{number}. {title}" for number, title in enumerate(session.titles, start=1))
