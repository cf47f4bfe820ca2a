"""What is wrong with an answer, bundle by bundle: the kinds of error that a person looks for when reading predictions."""

from dataclasses import dataclass

from kdjax.evaluation.metrics import Bundles, jaccard

KINDS = (
    "right",
    "missed product",
    "wrong product",
    "split",
    "merged",
    "whole session",
    "wrong bundle",
    "missed bundle",
)


@dataclass(frozen=True)
class Verdict:
    """One predicted bundle beside its closest true bundle; `kind` is one of `KINDS`.

    Products are ascending. `true` is () for a wrong bundle, `predicted` is () for a missed one.
    """

    kind: str
    predicted: tuple[int, ...]
    true: tuple[int, ...]


def errors_by_kind(predicted: Bundles, truth: Bundles, n_items: int) -> list[Verdict]:
    """Judge one session of `n_items` products: a verdict per distinct predicted set, then one per missed true bundle.

    A predicted set is compared with the true bundle of highest Jaccard (the first of equals), as in the feedback step of
    AICL (arXiv 2312.16262). The first that holds:

    * *right*: equal;
    * *wrong bundle*: no product in common with any true bundle;
    * *whole session*: every product of the session;
    * *merged*: it holds two or more true bundles in full;
    * *wrong product*: it has products from outside (it may lack some, too);
    * *split*: a part of the true bundle, of which another predicted set, a part too, holds other products;
    * *missed product*: a part of the true bundle.

    A true bundle is *missed* if it is the closest of no predicted set and none holds it in full.
    """
    true = list(dict.fromkeys(map(frozenset, truth)))
    named = list(dict.fromkeys(map(frozenset, predicted)))
    closest = [max(true, key=lambda t: jaccard(p, t), default=frozenset()) for p in named]
    verdicts = []
    for p, t in zip(named, closest, strict=True):
        kind = _kind(p, t, true, named, n_items)
        verdicts.append(Verdict(kind, _ascending(p), () if kind == "wrong bundle" else _ascending(t)))
    found = {verdict.true for verdict in verdicts}
    missed = [t for t in true if _ascending(t) not in found and not any(t <= p for p in named)]
    return verdicts + [Verdict("missed bundle", (), _ascending(t)) for t in missed]


def _kind(
    p: frozenset[int], closest: frozenset[int], true: list[frozenset[int]], named: list[frozenset[int]], n_items: int
) -> str:
    if not p & closest:
        return "wrong bundle"
    if p == closest:
        return "right"
    if len(p) == n_items:
        return "whole session"
    if sum(t <= p for t in true) > 1:
        return "merged"
    if not p < closest:
        return "wrong product"
    if any(other < closest and other - p and p - other for other in named):
        return "split"
    return "missed product"


def _ascending(bundle: frozenset[int]) -> tuple[int, ...]:
    return tuple(sorted(bundle))
