"""One test session as the report's error browser shows it: products, bundles, and what is right or wrong about them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_lowercase, ascii_uppercase
from typing import Any

from kdjax.evaluation import Verdict, errors_by_kind

VERDICTS = ("right", "partly right", "wrong")


@dataclass(frozen=True)
class Product:
    """`true` and `predicted` hold the letters of the bundles that the product is in: A, B for true ones, a, b for predicted."""

    number: int
    title: str
    true: tuple[str, ...]
    predicted: tuple[str, ...]


@dataclass(frozen=True)
class NamedBundle:
    """A true or predicted bundle with its letter, its product numbers and what is to be said of it."""

    letter: str
    numbers: tuple[int, ...]
    remark: str


@dataclass(frozen=True)
class SessionView:
    """A row of `predictions.jsonl`, judged."""

    domain: str
    session_id: str
    verdict: str  # one of VERDICTS
    valid: bool
    products: tuple[Product, ...]
    true: tuple[NamedBundle, ...]
    predicted: tuple[NamedBundle, ...]
    baseline: tuple[NamedBundle, ...]
    differs: bool  # from the baseline
    text: str
    tokens: tuple[int, int]  # prompt, completion


def session_view(row: Mapping[str, Any]) -> SessionView:
    """Judge a row of `predictions.jsonl` that also has `titles`, parallel to `items`, and perhaps what a `baseline` predicts.

    A session is right if its distinct predicted sets are its true bundles, partly right if some predicted set has two
    products that share a true bundle, else wrong.
    """
    truth, predicted = row["truth"], row["predicted"]
    true_sets, predicted_sets = [set(numbers) for numbers in truth], [set(numbers) for numbers in predicted]
    right = set(map(frozenset, true_sets)) == set(map(frozenset, predicted_sets))
    partly = any(len(named & true) >= 2 for named in predicted_sets for true in true_sets)
    baseline = row.get("baseline", predicted)
    probable = row.get("probabilities", ())
    products = tuple(
        Product(number, title, _letters(number, truth, ascii_uppercase), _letters(number, predicted, ascii_lowercase))
        for number, title in enumerate(row["titles"], start=1)
    )
    return SessionView(
        domain=row["domain"],
        session_id=row["session_id"],
        verdict="right" if right else "partly right" if partly else "wrong",
        valid=row["valid"],
        products=products,
        true=_named(truth, ascii_uppercase, ["found" if true in predicted_sets else "not found" for true in true_sets]),
        predicted=_named(predicted, ascii_lowercase, _remarks(predicted, truth, len(row["items"]), probable)),
        baseline=_named(baseline, ascii_lowercase, _remarks(baseline, truth, len(row["items"]))),
        differs=set(map(frozenset, predicted)) != set(map(frozenset, baseline)),
        text=row["text"],
        tokens=(row["prompt_tokens"], row["completion_tokens"]),
    )


def _letter(index: int, alphabet: str) -> str:
    """A to Z, then A1 to Z1 and so on."""
    turn, place = divmod(index, len(alphabet))
    return alphabet[place] + (str(turn) if turn else "")


def _letters(number: int, bundles: Sequence[Sequence[int]], alphabet: str) -> tuple[str, ...]:
    return tuple(_letter(index, alphabet) for index, bundle in enumerate(bundles) if number in bundle)


def _named(bundles: Sequence[Sequence[int]], alphabet: str, remarks: Sequence[str]) -> tuple[NamedBundle, ...]:
    named = enumerate(zip(bundles, remarks, strict=True))
    return tuple(NamedBundle(_letter(index, alphabet), tuple(numbers), remark) for index, (numbers, remark) in named)


def _remarks(
    predicted: Sequence[Sequence[int]], truth: Sequence[Sequence[int]], n: int, probable: Sequence[float] = ()
) -> list[str]:
    """What is to be said of each predicted bundle; first its probability, where it is known."""
    verdicts = {verdict.predicted: verdict for verdict in errors_by_kind(predicted, truth, n)}
    sets, true_sets = [set(numbers) for numbers in predicted], [set(numbers) for numbers in truth]
    remarks = [
        "named before" if named in sets[:i] else _remark(verdicts[tuple(sorted(named))], true_sets)
        for i, named in enumerate(sets)
    ]
    if not probable:
        return remarks
    return [f"{share:.0%} · {remark}" for share, remark in zip(probable, remarks, strict=True)]


def _remark(verdict: Verdict, truth: Sequence[set[int]]) -> str:
    """The kind of error, and how the predicted set differs from its closest true bundle."""
    named, true = set(verdict.predicted), set(verdict.true)
    if verdict.kind == "wrong bundle":
        return "wrong bundle: nothing in common with a true one"
    letter = _letter(truth.index(true), ascii_uppercase)
    if verdict.kind == "right":
        return f"right, true {letter}"
    faults = [
        f"{what} {', '.join(map(str, sorted(numbers)))}"
        for what, numbers in (("misses", true - named), ("wrongly has", named - true))
        if numbers
    ]
    return f"{verdict.kind}, near true {letter}: {'; '.join(faults)}"
