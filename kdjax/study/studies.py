"""A study from start to end: plan → run what is not finished → tables, plots and a report."""

from collections import Counter
from dataclasses import replace
from itertools import chain
from pathlib import Path
from statistics import fmean

import jax
from ml_collections import ConfigDict
from rich.console import Console

from kdjax.data import leak_counts
from kdjax.errors import InputError
from kdjax.lock import check_free, locked
from kdjax.reporting import write_study
from kdjax.reporting.runlog import plain_console
from kdjax.study.cell import load_domains, run
from kdjax.study.distil import DROPPED, card_files
from kdjax.study.grid import GridCell, Run, grid
from kdjax.study.outcome import outcome
from kdjax.study.plan import matmul_rate, plan, plan_table
from kdjax.study.predecessor import run_aicl
from kdjax.study.workdir import check_content, check_place, check_study
from kdjax.training import processes

RUN = {"run": run, "aicl": run_aicl}  # by the job of a cell
# The fields in which cells may differ that stand in one heat map.
FORMAT = {"knowledge.formats", "knowledge.thoughts_in", "teacher.kind"}
TOLD = {"prompting.fields", "prompting.title_words", "prompting.demonstrations", "train.shuffle_products"}
USE = TOLD | {"train.max_steps", "student.answer", "eval.orders", "eval.constraint", "eval.max_new_tokens"}


def study(config: ConfigDict, workdir: str) -> None:
    """Run the cells of `config.study` that are not finished, and write study.csv, study.md, study.tex and report.html.

    Each run has a folder of its own in <workdir>/cells, named by its config: a finished one is never run again, one that was
    broken off goes on, a changed one is another. With `study.dry_run` only the plan is printed, and nothing is written here.
    A run whose loss is not finite does not keep the others from theirs, unless several processes run the study.

    The lock of `workdir` is held until the end, and each run holds that of its own folder, too.

    Raises:
        InputError: a cell that cannot be run, found before any is; a folder that is no study's, or in which another process
            works; or runs that failed, after the tables of the others.
    """
    folder, console = Path(workdir), plain_console()
    cells = grid(config, folder)
    check_place(folder)
    check_study(folder)
    for cell in cells:
        domains = load_domains(cell.runs[0].config)
        for one in cell.runs:
            check_content(one.folder, one.config, domains)
    if not config.study.dry_run:
        check_free(folder)
    console.print(plan_table(cells, *plan(cells), matmul_rate()))
    if not config.study.dry_run:
        with locked(folder):
            _complete(config, folder, cells, console)


def _complete(config: ConfigDict, folder: Path, cells: list[GridCell], console: Console) -> None:
    """Run what is not finished, and write the tables."""
    shared = folder / "shared"
    shared.mkdir(exist_ok=True)
    waiting = [(cell, one) for cell in cells for one in cell.runs if not one.finished]
    failed = _run(waiting, shared, console)
    done = [replace(cell, runs=runs) for cell in cells if (runs := tuple(run for run in cell.runs if run.finished))]
    if done:
        _write(config, folder, done, [*failed])
    if failed:
        reasons = "; ".join(f"{name}: {why}" for name, why in failed.items())
        tables = f"{folder / 'study.md'} is of the others" if done else "no other is finished"
        raise InputError(f"{len(failed)} of {len(waiting)} runs failed; {tables}. {reasons}")
    console.print((folder / "study.md").read_text(encoding="utf-8"), soft_wrap=True)
    console.print(f"report: {folder / 'report.html'}", soft_wrap=True)


def _run(waiting: list[tuple[GridCell, Run]], shared: Path, console: Console) -> dict[str, str]:
    """Run them one after the other; returns those that failed, with the reason."""
    failed = {}
    for number, (cell, one) in enumerate(waiting, start=1):
        console.print(f"\nrun {number} of {len(waiting)}: {cell.name}, seed {one.seed}", soft_wrap=True)
        try:
            RUN[one.config.job](one.config, one.folder, shared)
        except FloatingPointError as error:  # this run's own; an InputError is for the user to put right
            if not processes.alone():
                raise
            failed[f"{cell.name}, seed {one.seed}"] = str(error)
            console.print(f"failed: {error}", soft_wrap=True)
        jax.clear_caches()  # the programs of a dozen runs are more mappings than Linux gives a process
    return failed


def _write(config: ConfigDict, folder: Path, cells: list[GridCell], failed: list[str]) -> None:
    named = {name: one.config for cell in cells for one in cell.runs for name in one.config.data.domains}
    domains = {name: load_domains(one)[name] for name, one in named.items()}
    rows, cards = outcome(cells, domains, config.eval.max_sessions), cards_of(cells)
    texts = {
        name: [
            c["text"]
            for file, of in cards.items()
            if file.split("/")[0] == name and not file.endswith(DROPPED)
            for c in of
        ]
        for name in domains
    }
    notes = []
    if synthetic := [name for name, domain in domains.items() if domain.synthetic]:
        notes.append(
            f"Synthetic data: the sessions of {', '.join(synthetic)} were generated, not observed. These numbers show that the "
            "program works, and say nothing about real shoppers."
        )
    if failed:
        notes.append(f"Not finished, and left out here: {'; '.join(failed)}.")
    write_study(
        folder,
        name=config.name,
        about=config.study.about,
        rows=rows,
        differ={cell.name: cell.fields for cell in cells},
        samples=samples(cells),
        uses=uses(cells),
        cards=cards,
        leaks={name: leak_counts(domain, texts[name]) for name, domain in domains.items()},
        notes=notes,
    )


def samples(cells: list[GridCell]) -> dict[str, tuple[float, str]]:
    """Cell → (ratio, strategy) of those that differ in nothing but the sample of the training sessions; empty if none
    has a part of them."""
    found = {
        cell.name: (cell.runs[0].config.quantity.ratio, cell.runs[0].config.quantity.strategy)
        for cell in cells
        if cell.fields.keys() <= {"quantity.ratio", "quantity.strategy"}
    }
    return found if any(ratio < 1 for ratio, _ in found.values()) else {}


def uses(cells: list[GridCell]) -> dict[str, tuple[str, str]]:
    """Cell → (format of its knowledge, how it is used), of those that differ in nothing else; empty unless both vary.

    A map has one number for each place: cells that would share one are left out.
    """
    found = {}
    for cell in cells:
        config = cell.runs[0].config
        if cell.fields.keys() <= FORMAT | USE:
            form = " + ".join(config.knowledge.formats) or "none"
            if config.teacher.kind == "annotations" and {"rules", "thoughts"} & {*config.knowledge.formats}:
                form += ", annotations"
            untrained = "in context" if config.student.answer == "text" else "untrained, pairs"
            use = untrained if config.train.max_steps == 0 else f"fine-tuned, {config.student.answer}"
            shown = config.prompting.demonstrations
            found[cell.name] = form, use + (f", {shown} shown" if shown else "")
    taken = Counter(found.values())
    found = {name: place for name, place in found.items() if taken[place] == 1}
    varied = all(len({place[axis] for place in found.values()}) > 1 for axis in (0, 1))
    return found if varied else {}


def cards_of(cells: list[GridCell]) -> dict[str, list[dict]]:
    """By "domain/format" the cards of all runs, each once: with all its sources, the most support that a run found, and its
    mean effect, also over runs that had it among the others of kept and dropped."""
    found: dict[str, dict[str, list[dict]]] = {}
    for one in (one for cell in cells for one in cell.runs):
        for name, rows in card_files(one.folder).items():
            for card in rows:
                found.setdefault(name, {}).setdefault(card["id"], []).append(card)
    effects: dict[str, list[float]] = {}
    for card in chain(*(same for cards in found.values() for same in cards.values())):
        if "effect" in card["checks"]:
            effects.setdefault(card["id"], []).append(card["checks"]["effect"])
    return {name: [_joined(same, effects.get(id, [])) for id, same in cards.items()] for name, cards in found.items()}


def _joined(same: list[dict], effects: list[float]) -> dict:
    """One card as several runs have it."""
    sources = {name: [*dict.fromkeys(chain(*(card[name] for card in same)))] for name in ("sessions", "calls")}
    checks = {name: value for card in same for name, value in card["checks"].items()} | {"runs": len(same)}
    if effects:
        checks["effect"] = fmean(effects)
    return same[0] | sources | {"support": max(card["support"] for card in same), "checks": checks}
