"""The end of a run: its report and its metrics.json, and the table that is said of it, now and when it is asked for again."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from kdjax.data import Domain
from kdjax.errors import InputError
from kdjax.lock import locked
from kdjax.reporting import (
    RunLog,
    headline,
    read_json,
    results_table,
    write_json,
    write_model_card,
    write_report,
)
from kdjax.study.distil import Cards, card_files, nothing_found
from kdjax.study.workdir import record


def finish(
    config: ConfigDict,
    folder: Path,
    domains: Mapping[str, Domain],
    metrics: dict,
    history: list[dict],
    rows: Sequence[dict],
    baselines: Mapping[str, Sequence[Mapping]],
    notes: Sequence[str],
) -> None:
    """Write report.html, the model card of the adapter where there is one and, last, metrics.json: then the run is finished.

    `history` are the events of training, `rows` the prediction rows of the test sessions, `baselines` those of the
    baselines, of which the report shows the best one; `notes` come above the report's tables.
    """
    titles = {(name, session.id): [*session.titles] for name, one in domains.items() for session in one.splits["test"]}
    best = max(baselines, key=lambda name: metrics["test"]["baselines"][name]["strict"]["f1"])
    named = {(row["domain"], row["session_id"]): row["predicted"] for row in baselines[best]}
    places = ((row["domain"], row["session_id"]) for row in rows)
    shown = [row | {"titles": titles[at], "baseline": named[at]} for row, at in zip(rows, places, strict=True)]
    about = {"name": config.name} | record(folder)
    write_report(folder / "report.html", about, metrics, history, shown, card_files(folder), notes, best)
    if (folder / "adapter").is_dir():
        facts = {name: _about(domain) for name, domain in domains.items()}
        write_model_card(folder / "adapter", config.name, about, metrics, facts, notes)
    write_json(folder / "metrics.json", metrics)


def _about(domain: Domain) -> dict:
    """What the model card says of a domain."""
    return {
        "source": domain.source,
        "license": domain.license,
        "synthetic": domain.synthetic,
        "sessions": {split: len(sessions) for split, sessions in domain.splits.items()},
    }


def notes(config: ConfigDict, cards: Mapping[str, Cards]) -> list[str]:
    """What a reader has to know of a run with a student before any number of it."""
    found = [f"{nothing_found(name, form)}." for name, forms in cards.items() for form in forms if not forms[form]]
    taught = set(config.knowledge.formats) & {"rules", "thoughts"} and config.teacher.kind == "hf"
    if taught and config.teacher.source == config.student.source:
        found.append("The teacher is the student's own model, a stand-in; a real study names a real teacher.")
    if config.student.source == "tiny-random":
        found.append("The student has two layers of random weights: these numbers only show that the program runs.")
    if config.eval.constraint != "none" and config.student.answer == "text":
        found.append(
            f"Answers were constrained (eval.constraint={config.eval.constraint}); the paper's setting is none."
        )
    return found


def shown_if_finished(config: ConfigDict, folder: Path) -> bool:
    """Whether the run in `folder` is finished; if so its table is said."""
    if not (folder / "metrics.json").is_file():
        return False
    read_metrics(folder)  # or an error, before anything is written to its log
    with locked(folder) as check_held, RunLog(folder, check=check_held) as log:
        log.say(f"{config.name} → {folder}, finished")
        show(folder, log)
    return True


def show(folder: Path, log: RunLog) -> None:
    """Say the table of a finished run."""
    metrics = read_metrics(folder)
    log.say(results_table(metrics))
    log.say(headline(metrics))
    log.say(f"report: {folder / 'report.html'}")


def read_metrics(folder: Path) -> dict:
    """The metrics.json of a finished run."""
    path = folder / "metrics.json"
    try:
        metrics = read_json(path)
        if not all(isinstance(metrics.get(name), dict) for name in ("test", "domains")):
            raise InputError(f"{path}: test or domains is missing")
    except InputError as error:
        raise InputError(f"{error}; delete it, and the same command makes it again") from error
    return metrics
