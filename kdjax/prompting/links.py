"""Links: where a product's line ends, the student says which earlier product of the session belongs with it, if any does.

The label is a numeral of one token, predicted from the last token of the line and never fed: all links of a session cost
not one token more than its prompt, and none depends on another. Links are to bundles what antecedents are to
coreference (Lee et al. 2017, arXiv 1707.07045): which products share a bundle follows from them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from kdjax.data import Session
from kdjax.errors import InputError
from kdjax.prompting.products import PLAIN, ProductForm, product_lines, product_list
from kdjax.sources import Tokenizer

NUMERALS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"  # "0": no earlier product; then products 1, 2, …


@dataclass(frozen=True)
class Target:
    """The token `token_id` is to be predicted from the token at `position` (of prompt and completion); `weight` is its share in the loss."""

    position: int
    token_id: int
    weight: float = 1.0


def numeral_ids(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The token of each of NUMERALS.

    Raises:
        InputError: the tokenizer has no token of its own for one of them.
    """
    ids = tuple(tokenizer.inner.token_to_id(numeral) for numeral in NUMERALS)
    if None in ids:
        raise InputError(
            f"{tokenizer.where}: the tokenizer has no token for {NUMERALS[ids.index(None)]!r}, so links cannot be read"
        )
    return ids


def line_ends(tokenizer: Tokenizer, prompt: str, session: Session, form: ProductForm = PLAIN) -> tuple[int, ...]:
    """Of each product of the session, the place in the prompt's tokens where its line ends."""
    text = tokenizer.escape(product_list(session, form)).rstrip()  # as templates that trim a message leave it
    end = prompt.rindex(text)
    last = end + len(text)
    starts = [start for start, _ in tokenizer.inner.encode(prompt, add_special_tokens=False).offsets]
    found, token = [], 0
    for line in product_lines(session, form):
        end += len(tokenizer.escape(line))
        while token + 1 < len(starts) and starts[token + 1] < min(end, last):  # bytes of one letter begin together
            token += 1
        found.append(token)
        end += len("\n")
    return tuple(found)


def link_targets(
    session: Session, ends: Sequence[int], numerals: Sequence[int], weight: float = 1.0
) -> tuple[Target, ...]:
    """The true links: for each product but the first the earlier ones that share a bundle with it, in equal shares; else "0".

    Raises:
        InputError: the session has more products than there are numerals.
    """
    if len(session) > len(numerals):
        raise InputError(f"session {session.id} has {len(session)} products; links have numerals for {len(numerals)}")
    targets = []
    for product in range(1, len(session)):
        mates = {mate for bundle in session.bundles if product in bundle for mate in bundle}
        earlier = sorted(mate + 1 for mate in mates if mate < product) or [0]
        targets += [Target(ends[product], numerals[number], weight / len(earlier)) for number in earlier]
    return tuple(targets)
