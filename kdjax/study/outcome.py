"""Finished runs → the rows of a study's table: each cell's metrics over its seeds, and its difference to the cell it is compared with."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from kdjax.data import Domain
from kdjax.errors import InputError
from kdjax.evaluation import bootstrap_interval, from_counts, holm, paired_bootstrap, run_baselines, session_counts
from kdjax.reporting import read_jsonl
from kdjax.study.examples import spread
from kdjax.study.grid import GridCell, Run
from kdjax.study.scores import FROZEN, METRIC

RESAMPLES = 10_000  # Holm multiplies p by the number of comparisons, and no p is below 2 / (RESAMPLES + 1)
POOLED = "all domains"


def outcome(cells: Sequence[GridCell], domains: Mapping[str, Domain], limit: int) -> list[dict]:
    """A row per cell and domain, then the fixed rows: the baselines and the frozen student. With several domains they are pooled, too.

    A cell's counts are the mean over its seeds, session by session, so that its metrics are those of all its answers
    and a resample of sessions draws each with all its seeds. "sd" is the standard deviation of the seeds' own strict
    F1; "against", "difference", "low", "high" and "p" compare with the cell's reference (paired bootstrap over test
    sessions), "holm" is p corrected over the rows of one domain. `limit` is eval.max_sessions.
    """
    rows: list[dict] = []
    counted = {name: {cell.name: _counts(cell, name, domain, limit) for cell in cells if name in cell.runs[0].config.data.domains}
               for name, domain in domains.items()}  # fmt: skip
    fixed = {name: _fixed(cells, name, domain, limit) for name, domain in domains.items()}
    groups = [[name] for name in domains]
    if len(domains) > 1:
        groups.append(list(domains))
    for names in groups:
        label = names[0] if len(names) == 1 else POOLED
        whole = {cell.name: cell for cell in cells if all(cell.name in counted[name] for name in names)}
        counts = {cell: np.concatenate([counted[name][cell] for name in names], axis=1) for cell in whole}
        table = [_row(label, cell, counts, names) for cell in whole.values()]
        compared = [row for row in table if row["p"] is not None]
        for row, p in zip(compared, holm([row["p"] for row in compared]), strict=True):
            row["holm"] = p
        rows += table
        for system in fixed[names[0]]:
            if all(system in fixed[name] for name in names):
                found = [fixed[name][system] for name in names]
                seeds = min(map(len, found))
                rows.append(
                    metrics_row(label, system, "baseline", np.concatenate([one[:seeds] for one in found], axis=1))
                )
    return rows


def _row(label: str, cell: GridCell, counts: Mapping[str, np.ndarray], names: Sequence[str]) -> dict:
    row = metrics_row(label, cell.name, "cell", counts[cell.name])
    lines = [line for run in cell.runs for line in _predictions(run) if line["domain"] in names]
    row["prompt_tokens"] = float(np.mean([line["prompt_tokens"] for line in lines]))
    row["rescued"] = sum(line["rescued"] for line in lines) / len(cell.runs)
    if cell.against in counts:
        ours, theirs = (counts[name].mean(axis=0) for name in (cell.name, cell.against))
        found = paired_bootstrap(ours, theirs, METRIC, resamples=RESAMPLES)
        row |= {"against": cell.against, "difference": found.difference, "low": found.low, "high": found.high}
        row["p"] = found.p_value
    return row


def metrics_row(label: str, name: str, kind: str, counts: np.ndarray) -> dict:
    """A row of a table, compared with nothing yet: the metrics of a system's answers, all its seeds' together.

    `counts`: [seeds, sessions, statistics] of `kdjax.evaluation.session_counts`; "f1_low" and "f1_high" are the 95 %
    interval over sessions, and "sd" is None of one seed.
    """
    groups = from_counts(counts.mean(axis=0).sum(axis=0))
    seeds = from_counts(counts.sum(axis=1))["strict"]["f1"]
    low, high = bootstrap_interval(counts.mean(axis=0), METRIC, resamples=RESAMPLES)
    answered = from_counts(counts.sum(axis=1))["paper"]["n_answered"]
    return {
        "domain": label,
        "name": name,
        "kind": kind,
        "seeds": len(counts),
        "n": counts.shape[1],
        "unanswered": counts.shape[1] - float(answered.mean()),
        "rescued": None,
        "f1": groups["strict"]["f1"],
        "sd": float(seeds.std(ddof=1)) if len(seeds) > 1 else None,
        "f1_low": low,
        "f1_high": high,
        **{key: groups["strict"][key] for key in ("precision", "recall", "exact_f1", "pair_f1", "valid_rate")},
        **{f"paper_{key}": groups["paper"][key] for key in ("precision", "recall", "coverage")},
        "prompt_tokens": None,
        **dict.fromkeys(("against", "difference", "low", "high", "p", "holm")),
    }


def _counts(cell: GridCell, name: str, domain: Domain, limit: int) -> np.ndarray:
    """[seeds, sessions, statistics] of a cell's answers in one domain."""
    return np.stack([_counted(run, _predictions(run), name, domain, limit) for run in cell.runs])


def _fixed(cells: Sequence[GridCell], name: str, domain: Domain, limit: int) -> dict[str, np.ndarray]:
    """System → [seeds, sessions, statistics]: what stands in every table."""
    asked = spread(domain.splits["test"], limit)
    truth = [session.bundles for session in asked]
    splits = (domain.splits[part] for part in ("train", "validation", "test"))
    fixed = {
        system: session_counts(spread(found, limit), truth)[None] for system, found in run_baselines(*splits).items()
    }
    if frozen := _frozen(cells, name):
        fixed[FROZEN] = np.stack([_counted(run, read_jsonl(path), name, domain, limit) for run, path in frozen])
    return fixed


def _frozen(cells: Sequence[GridCell], name: str) -> list[tuple[Run, Path]]:
    """The first cell's runs with the answers of their frozen student: of one that judges, if there is one, told as it is."""
    for answer, file in (("pairs", "predictions_before.jsonl"), ("text", "predictions_frozen.jsonl")):
        for cell in cells:
            config = cell.runs[0].config
            if name in config.data.domains and config.student.answer == answer and _whole(config):
                found = [(run, run.folder / file) for run in cell.runs if (run.folder / file).is_file()]
                if found:
                    return found
    return []


def _whole(config: ConfigDict) -> bool:
    return config.quantity.ratio == 1.0 and not config.student.adapter


def _predictions(run: Run) -> list[dict]:
    return read_jsonl(run.folder / "predictions.jsonl")


def _counted(run: Run, rows: Sequence[Mapping], name: str, domain: Domain, limit: int) -> np.ndarray:
    named = {row["session_id"]: row for row in rows if row["domain"] == name}
    asked = spread(domain.splits["test"], limit)
    if missing := [session.id for session in asked if session.id not in named]:
        raise InputError(f"{run.folder}: {len(missing)} test sessions of {name} have no prediction, as {missing[0]}")
    predicted = [[tuple(item - 1 for item in bundle) for bundle in named[session.id]["predicted"]] for session in asked]
    return session_counts(predicted, [session.bundles for session in asked])
