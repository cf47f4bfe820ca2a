"""Answers → predictions.jsonl rows and metrics.json: the student before and after, the baselines, intervals."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
from jaxtyping import Float

from kdjax.data import Domain, Session
from kdjax.decoding import NO_BUNDLE, Completion, bundle_probabilities, likely_bundles
from kdjax.errors import InputError
from kdjax.evaluation import (
    KINDS,
    TRAINED,
    bootstrap_interval,
    errors_by_kind,
    from_counts,
    pair_metrics,
    paired_bootstrap,
    run_baselines,
    session_counts,
    share_a_bundle,
)
from kdjax.prompting import parse_answer
from kdjax.reporting import read_jsonl
from kdjax.study.examples import spread
from kdjax.study.telling import Questions

METRIC = "strict.f1"  # what intervals are given for
FROZEN = "frozen student"


def prediction_rows(questions: Questions, completions: Sequence[Completion]) -> list[dict]:
    """One row per session, by DESIGN's field names; products by 1-based position."""
    answered = zip(questions.domains, questions.sessions, questions.prompts, completions, strict=True)
    return [
        prediction_row(
            domain, session, said.text, len(prompt.prompt_ids), len(said.token_ids), said.rescued, said.pair_log_odds
        )
        for domain, session, prompt, said in answered
    ]


def prediction_row(
    domain: str,
    session: Session,
    text: str,
    prompt_tokens: int,
    completion_tokens: int,
    rescued: bool = False,
    pair_log_odds: Sequence[float] = (),
) -> dict:
    """The row of a session that was answered with `text`; `rescued`: the automaton forbade something else.

    With the log-odds of its pairs come the probabilities of the bundles named, and of there being none, before calibration.
    """
    answer = parse_answer(text, len(session))
    row = {
        "domain": domain,
        "session_id": session.id,
        "items": list(session.items),
        "truth": [[item + 1 for item in bundle] for bundle in session.bundles],
        "predicted": [list(bundle) for bundle in answer.bundles],
        "text": text,
        "valid": answer.valid,
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "rescued": rescued,
    }
    if not pair_log_odds:
        return row
    beliefs = likely_bundles(square(pair_log_odds, len(session)))
    probable = bundle_probabilities(beliefs)
    named = [tuple(number - 1 for number in bundle) for bundle in answer.bundles]
    return row | {
        "probabilities": [round(probable[bundle], 4) for bundle in named],
        "no_bundle": round(beliefs[NO_BUNDLE], 6),
        "pair_log_odds": list(pair_log_odds),
    }


def square(pair_log_odds: Sequence[float], n: int) -> Float[np.ndarray, "n n"]:
    """The log-odds of the pairs (0, 1), (0, 2), …, (1, 2), … of n products as a symmetric matrix; 0 on the diagonal."""
    matrix = np.zeros((n, n))
    first, second = np.triu_indices(n, k=1)
    matrix[first, second] = matrix[second, first] = pair_log_odds
    return matrix


def read_predictions(path: Path, questions: Questions) -> list[dict]:
    """The prediction rows of a file that `prediction_rows` made of these questions.

    Raises:
        InputError: a row is missing, or is not what its text says; names the line.
    """
    rows, asked = read_jsonl(path), zip(questions.domains, questions.sessions, strict=True)
    for line, (row, told) in enumerate(zip_longest(rows, asked), start=1):
        if not row or not told or not _is_row(row, *told):
            raise InputError(
                f"{path}, line {line}: not the answer that this run has for a test session there; delete the file, and the same "
                "command makes it again"
            )
    return rows


def _is_row(row: Mapping, domain: str, session: Session) -> bool:
    rest = ("prompt_tokens", "completion_tokens", "rescued")
    if not isinstance(row.get("text"), str) or not row.keys() >= {*rest}:
        return False
    pairs = row.get("pair_log_odds", [])
    if not isinstance(pairs, list) or len(pairs) not in (0, len(session) * (len(session) - 1) // 2):
        return False
    tokens, rescued = (row["prompt_tokens"], row["completion_tokens"]), row["rescued"]
    return row == prediction_row(domain, session, row["text"], *tokens, rescued, pairs)


def scores(rows: Sequence[Mapping]) -> dict:
    """The three groups of metrics of prediction rows."""
    return from_counts(_counts(rows).sum(axis=0))


@dataclass(frozen=True)
class Tally:
    """What one system adds up to: a row of sufficient statistics per test session, how many bundles of each kind of
    error, and label and log-odds of each pair that it judged."""

    counts: Float[np.ndarray, "sessions statistics"]
    errors: Counter[str]
    pairs: Float[np.ndarray, "pairs 2"]

    def __add__(self, other: "Tally") -> "Tally":
        counts, pairs = ([getattr(one, name) for one in (self, other)] for name in ("counts", "pairs"))
        return Tally(np.concatenate(counts), self.errors + other.errors, np.concatenate(pairs))


def baseline_rows(domains: Mapping[str, Domain], limit: int) -> dict[str, list[dict]]:
    """Baseline → {"domain", "session_id", "predicted"} per test session that is asked about; products by 1-based position."""
    found: dict[str, list[dict]] = {}
    for domain in domains.values():
        train, validation, test = (domain.splits[part] for part in ("train", "validation", "test"))
        for name, answers in run_baselines(train, validation, test).items():
            asked = zip(spread(test, limit), spread(answers, limit), strict=True)
            found.setdefault(name, []).extend(
                {
                    "domain": domain.name,
                    "session_id": session.id,
                    "predicted": [[item + 1 for item in bundle] for bundle in bundles],
                }
                for session, bundles in asked
            )
    return found


def results(
    domains: Mapping[str, Domain],
    limit: int,
    predicted: Mapping[str, Sequence[Mapping]],
    baselines: Mapping[str, Sequence[Mapping]],
) -> dict:
    """{"test": R, "domains": {name: R}} of metrics.json; `test` pools the domains' sessions. `limit` is eval.max_sessions.

    `predicted`: system → prediction rows; "after" is the student, "before" the untrained one, FROZEN counts as a baseline.
    `baselines`: what `baseline_rows` returns. R also says whether the data is synthetic, in whole or in part.
    """
    tallies = {name: _tallies(domain, limit, {**predicted, **baselines}) for name, domain in domains.items()}
    first, *others = tallies.values()
    pooled = {system: sum((other[system] for other in others), start=tally) for system, tally in first.items()}
    synthetic = {name: domain.synthetic for name, domain in domains.items()}
    return {
        "test": _result(pooled) | {"synthetic": any(synthetic.values())},
        "domains": {name: _result(tallies[name]) | {"synthetic": synthetic[name]} for name in domains},
    }


def _tallies(domain: Domain, limit: int, predicted: Mapping[str, Sequence[Mapping]]) -> dict[str, Tally]:
    """System → its tally on one domain's test sessions."""
    asked = spread(domain.splits["test"], limit)
    systems = {}
    for name, rows in predicted.items():
        named = {row["session_id"]: row["predicted"] for row in rows if row["domain"] == domain.name}
        systems[name] = [[tuple(item - 1 for item in bundle) for bundle in named[session.id]] for session in asked]
    truth = [session.bundles for session in asked]
    tallies = {}
    for name, found in systems.items():
        judged = map(errors_by_kind, found, truth, map(len, asked))
        errors = Counter(verdict.kind for verdicts in judged for verdict in verdicts)
        tallies[name] = Tally(session_counts(found, truth), errors, _judged_pairs(predicted.get(name, ()), domain.name))
    return tallies


def _judged_pairs(rows: Sequence[Mapping], domain: str) -> Float[np.ndarray, "pairs 2"]:
    """Label and log-odds of each pair in the rows of a domain; none where the system does not judge pairs."""
    judged = [row for row in rows if row["domain"] == domain and "pair_log_odds" in row]
    bundles = ([[number - 1 for number in bundle] for bundle in row["truth"]] for row in judged)
    labels = [share_a_bundle(true, len(row["items"])) for true, row in zip(bundles, judged, strict=True)]
    log_odds = [np.asarray(row["pair_log_odds"]) for row in judged]
    return np.stack([np.concatenate([*columns, np.zeros(0)]) for columns in (labels, log_odds)], axis=1)


def _result(tallies: Mapping[str, Tally]) -> dict:
    """R of metrics.json."""
    counts = {system: tally.counts for system, tally in tallies.items()}
    groups = {system: from_counts(rows.sum(axis=0)) for system, rows in counts.items()}
    intervals = {system: list(bootstrap_interval(rows, METRIC)) for system, rows in counts.items()}
    baselines = {name: group for name, group in groups.items() if name not in ("after", "before")}
    rules_of_thumb = [name for name in baselines if name not in (TRAINED, FROZEN)]
    best = max(rules_of_thumb, key=lambda name: baselines[name]["strict"]["f1"])
    result = {"n": len(counts["after"]), **groups["after"]}
    if len(tallies["after"].pairs):
        result["pairs"] = pair_metrics(*tallies["after"].pairs.T)
    if "before" in groups:
        result["before"] = groups["before"]
    for name in ("before", best, TRAINED, FROZEN):
        if name in counts:
            intervals[f"after_minus_{name}"] = _difference(counts["after"], counts[name])
    errors = {system: {kind: tally.errors[kind] for kind in KINDS} for system, tally in tallies.items()}
    return result | {"baselines": baselines, "intervals": intervals, "errors": errors}


def _difference(a: np.ndarray, b: np.ndarray) -> list[float]:
    found = paired_bootstrap(a, b, METRIC)
    return [found.difference, found.low, found.high]


def _counts(rows: Sequence[Mapping]) -> np.ndarray:
    return session_counts([row["predicted"] for row in rows], [row["truth"] for row in rows])
