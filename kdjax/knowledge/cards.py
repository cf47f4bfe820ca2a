"""A card: one piece of distilled knowledge and where it came from. A knowledge file holds one card a line."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kdjax.errors import InputError
from kdjax.reporting.files import read_jsonl, write_jsonl

FORMATS = ("patterns", "rules", "thoughts")


@dataclass(frozen=True)
class Card:
    """One pattern, rule or thought.

    `sessions` are the ids of the training sessions it came from and `calls` the keys of the teacher calls that made it
    (none for mined patterns and annotations). `support` counts the bundles (patterns) or sessions (rules, thoughts)
    behind it. `tokens` is the length of `text` for the student. `checks` holds what was found out about it, e.g.
    {"finished": True, "effect": 0.012}.
    """

    format: str
    domain: str
    text: str
    sessions: tuple[str, ...]
    calls: tuple[str, ...]
    support: int
    tokens: int
    checks: Mapping[str, bool | int | float | str] = field(default_factory=dict, hash=False)

    @property
    def id(self) -> str:
        """12 hex digits of the sha256 of what the card says: format, domain and text; of a thought also its session.

        A rule or pattern keeps its id when more sessions are sampled. Two sessions can get the same thought word for
        word, and these are two cards.
        """
        said = [self.format, self.domain, self.text]
        if self.format == "thoughts":
            said += self.sessions
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:12]


def write_cards(path: str | Path, cards: Iterable[Card]) -> None:
    """Write one JSON object per line: the id, then the fields of Card. The file appears whole or not at all."""
    write_jsonl(path, ({"id": card.id} | dataclasses.asdict(card) for card in cards))


def read_cards(path: str | Path) -> list[Card]:
    """Read what `write_cards` wrote. Raises InputError with the file, row and field of what is not a card."""
    return [_card(row, f"{path}, row {number}") for number, row in enumerate(read_jsonl(path), start=1)]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)


_FIELDS = {  # name: (test, what it has to be)
    "id": (lambda value: isinstance(value, str), "a string"),
    "format": (lambda value: value in FORMATS, "one of " + ", ".join(FORMATS)),
    "domain": (lambda value: isinstance(value, str), "a string"),
    "text": (lambda value: isinstance(value, str) and bool(value.strip()), "a string that is not empty"),
    "sessions": (_is_strings, "a list of session ids (strings)"),
    "calls": (_is_strings, "a list of call keys (strings)"),
    "support": (_is_count, "a whole number, 0 or more"),
    "tokens": (_is_count, "a whole number, 0 or more"),
    "checks": (lambda value: isinstance(value, dict), "an object"),
}


def _card(row: dict, where: str) -> Card:
    for name in row:
        if name not in _FIELDS:
            raise InputError(f'{where}: unknown field "{name}"; a card has the fields {", ".join(_FIELDS)}')
    for name, (fits, wanted) in _FIELDS.items():
        if name not in row:
            raise InputError(f'{where}: the field "{name}" is missing; it has to be {wanted}')
        if not fits(row[name]):
            raise InputError(f'{where}: the field "{name}" is {json.dumps(row[name])}; it has to be {wanted}')
    stated = row.pop("id")
    card = Card(**row | {"sessions": tuple(row["sessions"]), "calls": tuple(row["calls"])})
    if card.id != stated:
        raise InputError(
            f'{where}: the field "id" is {stated}, but this format, domain and text give {card.id}; '
            "a card that was edited is another card, so write that id"
        )
    return card
