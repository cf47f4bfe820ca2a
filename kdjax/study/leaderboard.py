"""Score a file of predictions, of whatever system, as every run here is scored, and write its row for docs/LEADERBOARD.md."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from rich.table import Table

from kdjax.data import Domain, load_annotated
from kdjax.errors import InputError
from kdjax.evaluation import session_counts
from kdjax.reporting.runlog import plain_console
from kdjax.reporting.tables import NOTHING, interval_text
from kdjax.study.outcome import POOLED, metrics_row
from kdjax.study.predictions import predicted_bundles, questions_of, read_answers

# Domain.digest of the leaderboard's domains: sessions, products, titles, categories, bundles and split
OFFICIAL = {
    "electronic": "642361b8a15ba40c463c3ef74559b2e8f48daab8162c3f4b8be8b8605a0f7b4b",
    "clothing": "f3ce1213f7aef4be3eaf4de963831d45552bafe815874d8e7b2a778fc19e54fa",
}
LISTED = ("F1", "exact F1", "pair F1")  # strict
HEADINGS = (
    "system",
    *(f"{name} {metric}" for name in OFFICIAL for metric in LISTED),
    *("seeds", "commit", "hardware", "minutes"),
)
METRICS = {  # heading → key of a row of `metrics_row`, and how it is written
    "sessions": ("n", "d"),
    "strict F1": ("f1", ".3f"),
    "± over seeds": ("sd", ".3f"),
    "strict precision": ("precision", ".3f"),
    "strict recall": ("recall", ".3f"),
    "strict exact F1": ("exact_f1", ".3f"),
    "strict pair F1": ("pair_f1", ".3f"),
    "strict valid": ("valid_rate", ".3f"),
    "paper P": ("paper_precision", ".3f"),
    "paper R": ("paper_recall", ".3f"),
    "paper coverage": ("paper_coverage", ".3f"),
    "unanswered": ("unanswered", ".1f"),
}


def score_predictions(config: ConfigDict, workdir: str) -> None:
    """Print the metrics of `config.score.predictions`, and its row for the leaderboard if the data is the leaderboard's.

    Several files, with commas between them, are the seeds of one system and are scored together. With an empty `data.source`
    the first file's own truth is taken, and the output says so. Nothing is written.

    Raises:
        InputError: a file does not answer each test session of `data.domains` exactly once; it names the line.
    """
    files = [Path(name.strip()) for name in config.score.predictions.split(",") if name.strip()]
    if not files:
        raise InputError(
            "config.score.predictions is empty; name a predictions.jsonl, or one per seed with commas between"
        )
    data = config.data
    domains = {name: load_annotated(data.source, data.root, name) for name in data.domains} if data.source else {}
    rows = score_files(files, domains)
    console = plain_console()
    console.print(metrics_table(rows))
    for line in verdicts([row["domain"] for row in rows if row["domain"] != POOLED], domains):
        console.print(line, soft_wrap=True)
    if domains and all(domain.digest == OFFICIAL.get(name) for name, domain in domains.items()):
        console.print(f"\nfor docs/LEADERBOARD.md:\n{markdown_row(rows, len(files))}", soft_wrap=True)


def score_files(files: Sequence[Path], domains: Mapping[str, Domain]) -> list[dict]:
    """A row of metrics for each domain and, if there are several, one for all; the files are seeds of one system.

    Without `domains` the sessions and their truth are those of the first file.
    """
    answers = [read_answers(path) for path in files]
    known = questions_of(domains) or {answer.question: answer.known for answer in answers[0]}
    predicted = [predicted_bundles(one, known) for one in answers]
    counts = {}  # domain → [seeds, sessions, statistics]
    for domain in dict.fromkeys(name for name, _ in known):
        asked = {question: known[question].bundles for question in known if question[0] == domain}
        counts[domain] = np.stack(
            [session_counts([one[question] for question in asked], [*asked.values()]) for one in predicted]
        )
    if len(counts) > 1:
        counts[POOLED] = np.concatenate([*counts.values()], axis=1)
    return [metrics_row(label, "", "cell", one) for label, one in counts.items()]


def metrics_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A column for each row of `metrics_row`; the strict F1 has its 95 % interval."""
    table = Table(box=None)
    for heading in ("", *(row["domain"] for row in rows)):
        table.add_column(heading, justify="right" if heading else "left")
    for heading in METRICS:
        table.add_row(heading, *(_cell(row, heading) for row in rows))
    return table


def verdicts(names: Sequence[str], domains: Mapping[str, Domain]) -> list[str]:
    """For each domain a line that says which data the predictions were checked against."""
    if not domains:
        return [f"{name}: no data was read; the truth is what the file says it is" for name in names]
    official = {True: "the leaderboard's data", False: "not the leaderboard's data"}
    return [f"{name}: {official[domains[name].digest == OFFICIAL.get(name)]}, {domains[name].digest}" for name in names]


def markdown_row(rows: Sequence[Mapping[str, Any]], seeds: int) -> str:
    """The cells under `HEADINGS`; those in capitals are to be filled in by hand."""
    found = {row["domain"]: row for row in rows}
    cells = ["SYSTEM"]
    for row in map(found.get, OFFICIAL):
        cells += [_cell(row, f"strict {metric}") if row else "—" for metric in LISTED]
    return f"| {' | '.join([*cells, str(seeds), 'COMMIT', 'HARDWARE', 'MINUTES'])} |"


def _cell(row: Mapping[str, Any], heading: str) -> str:
    key, form = METRICS[heading]
    if row[key] is None:
        return NOTHING
    return f"{row[key]:{form}}" + (f" {interval_text((row['f1_low'], row['f1_high']))}" if key == "f1" else "")
