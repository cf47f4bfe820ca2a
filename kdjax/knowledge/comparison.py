"""A teacher's answer against the true bundles: what is right, what is wrong with the rest, told in words."""

from collections.abc import Sequence
from dataclasses import dataclass

from kdjax.prompting.answers import ParsedAnswer


@dataclass(frozen=True)
class Finding:
    """What is to be said about one bundle; all numbers are 1-based product numbers.

    kind: "right"; "wrong" (shares no product with any true bundle); "irrelevant" (`products` do not belong);
    "missing" (`products` are missing); "single" (one product of a true bundle); "missed" (a true bundle that is no
    answered one's nearest); "out_of_range" (the answer named products that are not listed).
    `truth` is the nearest true bundle.
    """

    kind: str
    bundle: tuple[int, ...] = ()
    truth: tuple[int, ...] = ()
    products: tuple[int, ...] = ()


def compare(answer: ParsedAnswer, bundles: Sequence[tuple[int, ...]]) -> tuple[Finding, ...]:
    """Type every answered bundle by its nearest true one (highest Jaccard, the first of equals), as AICL does.

    `bundles` are the true ones as 0-based positions. Answered bundles come first, in answer order and without repeats,
    then what was missed, then what is out of range.
    """
    truths = [tuple(sorted(item + 1 for item in bundle)) for bundle in bundles]
    answered = dict.fromkeys(tuple(sorted(set(bundle))) for bundle in answer.bundles)
    findings = [_finding(bundle, truths) for bundle in answered]
    met = {finding.truth for finding in findings}
    findings += [Finding("missed", truth=truth) for truth in truths if truth not in met]
    return tuple(findings + [Finding("out_of_range")] * (answer.out_of_range > 0))


def _finding(bundle: tuple[int, ...], truths: list[tuple[int, ...]]) -> Finding:
    truth = max(truths, key=lambda truth: _jaccard(bundle, truth), default=())
    irrelevant = tuple(sorted(set(bundle) - set(truth)))
    if bundle == truth:
        return Finding("right", bundle, truth)
    if len(irrelevant) == len(bundle):
        return Finding("wrong", bundle)
    if irrelevant:
        return Finding("irrelevant", bundle, truth, irrelevant)
    if len(bundle) == 1:
        return Finding("single", bundle, truth)
    return Finding("missing", bundle, truth, tuple(sorted(set(truth) - set(bundle))))


def _jaccard(left: tuple[int, ...], right: tuple[int, ...]) -> float:
    return len(set(left) & set(right)) / len(set(left) | set(right))


def is_right(findings: Sequence[Finding]) -> bool:
    """Whether there is nothing to correct."""
    return all(finding.kind == "right" for finding in findings)


def feedback(findings: Sequence[Finding]) -> str:
    """Tell the findings to the teacher, one line each, with the true bundles."""
    return "\n".join(_WORDS[finding.kind](finding) for finding in findings)


def _numbers(products: tuple[int, ...]) -> str:
    return ", ".join(map(str, products))


_WORDS = {
    "right": lambda f: f"- [{_numbers(f.bundle)}] is right.",
    "wrong": lambda f: f"- [{_numbers(f.bundle)}] is wrong: none of these products is in a bundle.",
    "irrelevant": lambda f: (
        f"- [{_numbers(f.bundle)}] has products that do not belong ({_numbers(f.products)}): "
        f"the bundle is [{_numbers(f.truth)}]."
    ),
    "missing": lambda f: (
        f"- [{_numbers(f.bundle)}] misses products ({_numbers(f.products)}): the bundle is [{_numbers(f.truth)}]."
    ),
    "single": lambda f: f"- [{_numbers(f.bundle)}] is only one product: the bundle is [{_numbers(f.truth)}].",
    "missed": lambda f: f"- The bundle [{_numbers(f.truth)}] was not found.",
    "out_of_range": lambda f: "- Your answer names products that are not in the list.",
}
