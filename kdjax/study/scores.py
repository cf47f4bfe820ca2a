"""Answers → predictions.jsonl rows and metrics.json: the student before and after, the baselines, intervals."""

from collections.abc import Mapping, Sequence

import numpy as np

from kdjax.data import Domain
from kdjax.decoding import Completion
from kdjax.evaluation import bootstrap_interval, from_counts, paired_bootstrap, run_baselines, session_counts
from kdjax.prompting import parse_answer
from kdjax.study.examples import Questions, spread

METRIC = "strict.f1"  # what intervals are given for


def prediction_rows(questions: Questions, completions: Sequence[Completion]) -> list[dict]:
    """One row per session, by DESIGN's field names; products by 1-based position."""
    rows = []
    for domain, session, prompt, completion in zip(
        questions.domains, questions.sessions, questions.prompts, completions, strict=True
    ):
        answer = parse_answer(completion.text, len(session))
        rows.append(
            {
                "domain": domain,
                "session_id": session.id,
                "items": list(session.items),
                "truth": [[item + 1 for item in bundle] for bundle in session.bundles],
                "predicted": [list(bundle) for bundle in answer.bundles],
                "text": completion.text,
                "valid": answer.valid,
                "prompt_tokens": len(prompt.prompt_ids),
                "completion_tokens": len(completion.token_ids),
            }
        )
    return rows


def scores(rows: Sequence[Mapping]) -> dict:
    """The three groups of metrics of prediction rows."""
    return from_counts(_counts(rows).sum(axis=0))


def results(
    domains: Mapping[str, Domain], limit: int, after: Sequence[Mapping], before: Sequence[Mapping] | None
) -> dict:
    """{"test": R, "domains": {name: R}} of metrics.json; `test` pools the domains' sessions. `limit` is eval.max_sessions.

    R also says whether the data is synthetic, in whole or in part.
    """
    counts = {name: _domain_counts(domain, limit, after, before) for name, domain in domains.items()}
    systems = next(iter(counts.values()))
    pooled = {system: np.concatenate([counts[name][system] for name in domains]) for system in systems}
    synthetic = {name: domain.synthetic for name, domain in domains.items()}
    return {
        "test": _result(pooled) | {"synthetic": any(synthetic.values())},
        "domains": {name: _result(counts[name]) | {"synthetic": synthetic[name]} for name in domains},
    }


def _domain_counts(domain: Domain, limit: int, after, before) -> dict[str, np.ndarray]:
    """System → its sufficient statistics per test session: "after", "before" where there is one, and the baselines."""
    counts = {"after": _counts([row for row in after if row["domain"] == domain.name])}
    if before is not None:
        counts["before"] = _counts([row for row in before if row["domain"] == domain.name])
    train, validation, test = (domain.splits[part] for part in ("train", "validation", "test"))
    truth = [session.bundles for session in spread(test, limit)]
    for name, predicted in run_baselines(train, validation, test).items():
        counts[name] = session_counts(spread(predicted, limit), truth)
    return counts


def _result(counts: Mapping[str, np.ndarray]) -> dict:
    """R of metrics.json."""
    groups = {system: from_counts(rows.sum(axis=0)) for system, rows in counts.items()}
    intervals = {system: list(bootstrap_interval(rows, METRIC)) for system, rows in counts.items()}
    baselines = {name: group for name, group in groups.items() if name not in ("after", "before")}
    best = max(baselines, key=lambda name: baselines[name]["strict"]["f1"])
    intervals[f"after_minus_{best}"] = _difference(counts["after"], counts[best])
    result = {"n": len(counts["after"]), **groups["after"]}
    if "before" in groups:
        result["before"] = groups["before"]
        intervals["after_minus_before"] = _difference(counts["after"], counts["before"])
    return result | {"baselines": baselines, "intervals": intervals}


def _difference(a: np.ndarray, b: np.ndarray) -> list[float]:
    found = paired_bootstrap(a, b, METRIC)
    return [found.difference, found.low, found.high]


def _counts(rows: Sequence[Mapping]) -> np.ndarray:
    return session_counts([row["predicted"] for row in rows], [row["truth"] for row in rows])
