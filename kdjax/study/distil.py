"""Training sessions → knowledge cards, by whichever teacher the config names; one file per domain and format."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path

from ml_collections import ConfigDict

from kdjax import knowledge
from kdjax.data import Domain, Session
from kdjax.knowledge import Card
from kdjax.reporting import Progress, RunLog
from kdjax.study.settings import teacher_cache
from kdjax.teacher import Teacher, open_teacher

Cards = dict[str, list[Card]]  # by format


def card_path(workdir: Path, domain: str, form: str) -> Path:
    """Where a domain's cards of one format are."""
    return workdir / "knowledge" / domain / f"{form}.jsonl"


def distil(
    config: ConfigDict, domains: Mapping[str, Domain], workdir: Path, count_tokens: Callable[[str], int], log: RunLog
) -> dict[str, Cards]:
    """The cards of every domain. Files that are there are read, not made again; the teacher's process ends with this call."""
    missing = _missing(config, domains, workdir)
    with _open(config, log) if _asks(config, missing) else nullcontext() as teacher:
        for domain, form in missing:
            cards = _extract(config, domain, form, teacher, count_tokens, log)
            knowledge.write_cards(card_path(workdir, domain.name, form), cards)
            log.say(f"{domain.name}: {len(cards)} cards of {form}" if cards else nothing_found(domain.name, form))
            log.event("knowledge", domain=domain.name, format=form, cards=len(cards))
        if teacher:
            log.event("teacher", **vars(teacher.stats))
    return {
        name: {form: knowledge.read_cards(card_path(workdir, name, form)) for form in config.knowledge.formats}
        for name in domains
    }


def nothing_found(domain: str, form: str) -> str:
    """What is said where a format yields no card."""
    return f"{domain}: no card of {form} came out, so the student sees none: this run does not measure what {form} are worth"


def check_teacher(config: ConfigDict, domains: Mapping[str, Domain], workdir: Path) -> None:
    """Raise InputError, before anything is written, if a teacher that will be asked is not there or has a broken cache."""
    if _asks(config, _missing(config, domains, workdir)):
        _teacher(config, lambda text: None).close()


def _missing(config: ConfigDict, domains: Mapping[str, Domain], workdir: Path) -> list[tuple[Domain, str]]:
    """The (domain, format) whose cards are still to be made."""
    wanted = [(domain, form) for domain in domains.values() for form in config.knowledge.formats]
    return [(domain, form) for domain, form in wanted if not card_path(workdir, domain.name, form).is_file()]


def _asks(config: ConfigDict, missing: list[tuple[Domain, str]]) -> bool:
    return config.teacher.kind != "annotations" and any(form != "patterns" for _, form in missing)


def _open(config: ConfigDict, log: RunLog) -> Teacher:
    if config.teacher.kind == "hf" and config.teacher.source == config.student.source:
        log.say(
            f"teacher: {config.teacher.source} is the student's own model, a stand-in; a real study names a real teacher"
        )
    return _teacher(config, log.say)


def _teacher(config: ConfigDict, log: Callable[[str], None]) -> Teacher:
    return open_teacher(
        config.teacher.kind,
        config.teacher.source,
        teacher_cache(config),
        dtype=config.teacher.dtype,
        batch_size=config.teacher.batch_size,
        log=log,
    )


def _extract(
    config: ConfigDict, domain: Domain, form: str, teacher: Teacher | None, count_tokens, log: RunLog
) -> list[Card]:
    settings, train = config.knowledge, domain.splits["train"]
    if form == "patterns":
        return knowledge.mine_patterns(
            train, domain.name, min_count=settings.min_count, limit=settings.limit, count_tokens=count_tokens
        )
    budget = {"limit": settings.limit, "max_tokens": settings.max_tokens, "count_tokens": count_tokens}
    if form == "rules":
        if teacher is None:
            return knowledge.annotation_rule_cards(train, domain.name, **budget)
        sessions = _sample(config, train, settings.reflections)
        candidates = knowledge.reflect(
            sessions, _asking(teacher, log), max_new_tokens=settings.max_new_tokens, log=log.say
        )
        return knowledge.merge_rules(candidates, domain.name, **budget)
    sessions = _sample(config, train, settings.thoughts or len(train))
    if teacher is None:
        return knowledge.annotation_thoughts(sessions, domain.name, count_tokens=count_tokens)
    return knowledge.think(
        sessions, _asking(teacher, log), domain.name, max_new_tokens=settings.max_new_tokens, count_tokens=count_tokens
    )


def _sample(config: ConfigDict, sessions: list[Session], count: int) -> list[Session]:
    return knowledge.sample_sessions(
        sessions, count=min(count, len(sessions)), strategy=config.knowledge.strategy, seed=config.seed
    )


def _asking(teacher: Teacher, log: RunLog):
    """The teacher's `ask` with a progress line per pass."""

    def ask(calls):
        with Progress(len(set(calls)), "teacher", log) as progress:
            return teacher.ask(calls, on_batch=lambda done, total: progress.update(done - progress.done))

    return ask
