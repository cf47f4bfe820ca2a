"""Which categories come together: frequent patterns of the training sessions alone, without a student."""

import time
from dataclasses import replace
from pathlib import Path

from ml_collections import ConfigDict
from rich.table import Table

from kdjax.data import Session, describe, load_domain
from kdjax.knowledge import Card, mine_patterns
from kdjax.reporting import RunLog, write_jsonl
from kdjax.study.workdir import check_workdir, claim

SHOWN = 20  # patterns on the console


def mine(config: ConfigDict, workdir: str) -> None:
    """Write <workdir>/patterns/<domain>.jsonl: {"pattern", "size", "support", "share"} per row, the most supported first.

    These are the patterns of `kdjax.knowledge.mine_patterns` that at least `knowledge.min_count` bundles of training sessions
    hold, at most `knowledge.limit`; "share" is of these bundles. Where no bundle is annotated, whole sessions take their
    place: what is bought together.

    Raises:
        InputError: something in the config, the data or the workdir cannot be used.
    """
    folder, data = Path(workdir), config.data
    domains = {name: load_domain(data.source, data.root, name) for name in data.domains}
    check_workdir(folder, config, domains)
    claim(folder, config, domains)
    with RunLog(folder) as log:
        for name, domain in domains.items():
            log.say(describe(domain))
            sessions, of = domain.splits["train"], "bundles"
            if not domain.annotated:
                sessions, of = [_as_bundle(session) for session in sessions], "whole sessions"
            started = time.perf_counter()
            found = mine_patterns(
                sessions,
                name,
                min_count=config.knowledge.min_count,
                limit=config.knowledge.limit,
                count_tokens=len,  # goes into no file here
            )
            seconds, count = time.perf_counter() - started, sum(len(session.bundles) for session in sessions)
            path = folder / "patterns" / f"{name}.jsonl"
            write_jsonl(path, [_row(card, count) for card in found])
            log.say(_table(found[:SHOWN], count))
            log.say(f"{len(found)} patterns of {count} {of} in {seconds:.1f} s → {path}")


def _as_bundle(session: Session) -> Session:
    return replace(session, bundles=(tuple(range(len(session))),))


def _row(card: Card, count: int) -> dict:
    return {
        "pattern": card.text,
        "size": card.checks["size"],
        "support": card.support,
        "share": card.support / count,
    }


def _table(cards: list[Card], count: int) -> Table:
    table = Table("pattern", box=None)
    for heading in ("support", "share"):
        table.add_column(heading, justify="right")
    for card in cards:
        table.add_row(card.text, str(card.support), f"{card.support / count:.1%}")
    return table
