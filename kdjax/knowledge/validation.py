"""Only the knowledge that helps: each card is tried on the validation sessions."""

import dataclasses
from collections.abc import Callable, Sequence

from kdjax.knowledge.cards import Card
from kdjax.knowledge.protocols import Log


def keep_validated(
    cards: Sequence[Card], evaluate: Callable[[Sequence[Card]], float], *, log: Log
) -> tuple[list[Card], list[Card]]:
    """The cards that raise the score on their own, effect = evaluate([card]) − evaluate([]) > 0, and those that do not.

    `evaluate` gives the strict F1 on validation sessions with these cards in the prompt; it is called once more than
    there are cards. The effect is logged, and written to `checks["effect"]`.
    """
    if not cards:
        return [], []
    without = evaluate([])
    kept: list[Card] = []
    dropped: list[Card] = []
    for card in cards:
        effect = evaluate([card]) - without
        log(f"validation: {effect:+.4f} {'kept' if effect > 0 else 'dropped'}: {card.text}")
        (kept if effect > 0 else dropped).append(dataclasses.replace(card, checks={**card.checks, "effect": effect}))
    return kept, dropped
