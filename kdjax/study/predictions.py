"""A file of predictions, of whatever system: read, and checked against the sessions that it should answer.

A prediction is a line of JSON, of which these fields are read (`predictions.jsonl` of a run has them):

    {"domain": "electronic", "session_id": "17", "items": ["B01", "B02", "B03"], "truth": [[1, 2]], "predicted": [[1, 2], [2, 3]]}

`items` are the session's products in their order; `truth` and `predicted` are bundles of 1-based positions among them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from kdjax.data import Domain
from kdjax.data.rows import Row
from kdjax.errors import InputError
from kdjax.reporting import numbered_jsonl

Bundles = tuple[tuple[int, ...], ...]  # of 0-based positions
Question = tuple[str, str]  # domain, session id
FIELDS = ("domain", "session_id", "items", "truth", "predicted")


class Known(NamedTuple):
    """What an answer has to repeat of its session: the products in their order, and the true bundles, in any order."""

    items: tuple[str, ...]
    bundles: Bundles


class Answer(NamedTuple):
    """A row of a file of predictions."""

    row: Row
    question: Question
    known: Known
    predicted: Bundles


def questions_of(domains: Mapping[str, Domain]) -> dict[Question, Known]:
    """What is known of all test sessions, in the order of the split."""
    return {
        (name, session.id): Known(session.items, session.bundles)
        for name, domain in domains.items()
        for session in domain.splits["test"]
    }


def read_answers(path: Path) -> list[Answer]:
    """The rows of a file of predictions, at least one; each session once, and every position within its session.

    Raises:
        InputError: naming the line and the field.
    """
    answers = [_answer(Row(path, line, values)) for line, values in numbered_jsonl(path)]
    if not answers:
        raise InputError(f"{path}: the file has no rows; a row is a JSON object with {', '.join(FIELDS)}")
    line_of: dict[Question, int] = {}
    for row, (name, id), *_ in answers:
        if (name, id) in line_of:
            raise row.fault("session_id", f"session {id} of {name} is a duplicate of line {line_of[name, id]}")
        line_of[name, id] = row.line
    return answers


def predicted_bundles(answers: Sequence[Answer], known: Mapping[Question, Known]) -> dict[Question, Bundles]:
    """The predicted bundles by question, of answers to exactly the known questions.

    Raises:
        InputError: an answer is to another question, or its products or its truth are not what is known; or one is missing.
    """
    names = dict.fromkeys(name for name, _ in known)
    for row, (name, id), own, _ in answers:
        there = known.get((name, id))
        if name not in names:
            raise row.fault("domain", f"{name!r} is not one of {', '.join(names)}")
        if there is None:
            raise row.fault("session_id", f"{id!r} is not a test session of {name}")
        if own.items != there.items:
            raise row.fault("items", f"these are not the products of session {id} of {name}, in their order")
        if sorted(own.bundles) != sorted(there.bundles):
            raise row.fault("truth", f"these are not the bundles of session {id} of {name}")
    found = {answer.question: answer.predicted for answer in answers}
    if missing := [question for question in known if question not in found]:
        (name, id), path = missing[0], answers[0].row.path
        raise InputError(f"{path}: {len(missing)} of {len(known)} test sessions have no row, as session {id} of {name}")
    return found


def _answer(row: Row) -> Answer:
    for field in FIELDS:
        if field not in row.values:
            raise row.fault(field, "is missing")
    items = row.texts("items")
    truth = tuple(tuple(sorted(bundle)) for bundle in _bundles(row, "truth", len(items)))
    return Answer(
        row, (row.text("domain"), row.text("session_id")), Known(items, truth), _bundles(row, "predicted", len(items))
    )


def _bundles(row: Row, field: str, n_items: int) -> Bundles:
    """A bundle may name a product twice, as a model may: the paper's metrics count that."""
    bundles = row.values[field]
    if not isinstance(bundles, list) or not all(isinstance(bundle, list) and bundle for bundle in bundles):
        raise row.fault(field, "is not a list of bundles, each a list of one position or more, as in [[1, 2]]")
    for position in (position for bundle in bundles for position in bundle):
        if type(position) is not int or not 1 <= position <= n_items:  # True is an int to isinstance
            raise row.fault(field, f"{position!r} is not a position from 1 to {n_items}")
    return tuple(tuple(position - 1 for position in bundle) for bundle in bundles)
