"""Cards → the words of a prompt."""

from collections.abc import Mapping, Sequence

from kdjax.errors import InputError
from kdjax.knowledge.cards import FORMATS, Card


def knowledge_text(cards_by_format: Mapping[str, Sequence[Card]]) -> str:
    """Write patterns, then rules, as context for a prompt; "" if there are none.

    Several formats make several blocks, and several domains' cards are listed in the order given, equal texts once.
    Thoughts are about single sessions, hence targets or demonstrations and never context: they are left out here.
    Raises InputError for an unknown format.
    """
    for name in cards_by_format:
        if name not in FORMATS:
            raise InputError(f'unknown knowledge format "{name}"; there are {", ".join(FORMATS)}')
    patterns = dict.fromkeys(card.text for card in cards_by_format.get("patterns", ()))
    rules = dict.fromkeys(card.text for card in cards_by_format.get("rules", ()))
    blocks = []
    if patterns:
        blocks.append("\n".join(["Often bundled together:", *(f"- {text}" for text in patterns)]))
    if rules:
        blocks.append(rules_block(list(rules)))
    return "\n\n".join(blocks)


def rules_block(rules: Sequence[str]) -> str:
    """The rules as they stand in a prompt: a heading and numbered lines."""
    return "\n".join(["Rules:", *(f"{number}. {text}" for number, text in enumerate(rules, start=1))])
