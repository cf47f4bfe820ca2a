"""Training sessions → knowledge cards, by whichever teacher the config names; one file per domain and format.

`domains` are those whose training sessions may yield knowledge, a sample perhaps; `whole` are the same with all of
them. Which ones the teacher is asked about is drawn from all: so a sample yields its share, and of nested samples the
sessions asked about are nested (but for the one that a sample has which holds none of them); their cards are not, since
those are merged and cut to what fits.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

from ml_collections import ConfigDict

from kdjax import knowledge
from kdjax.data import Domain, Session
from kdjax.knowledge import Ask, Card, CountTokens, Log
from kdjax.reporting import Progress, RunLog, read_jsonl
from kdjax.study.settings import teacher_cache
from kdjax.teacher import Teacher, check_cache_dir, open_teacher

Cards = dict[str, list[Card]]  # by format
DROPPED = "_dropped"  # behind the format in the name of a file whose cards no student is told


def card_path(workdir: Path, domain: str, form: str) -> Path:
    """Where a domain's cards of one format are."""
    return workdir / "knowledge" / domain / f"{form}.jsonl"


def dropped_path(workdir: Path, domain: str, form: str) -> Path:
    """Where those cards are that did not raise the score on validation, if they were tried."""
    return card_path(workdir, domain, form + DROPPED)


def card_files(workdir: Path) -> dict[str, list[dict]]:
    """By "domain/format" the rows of a run's card files, those of dropped cards included."""
    return {f"{path.parent.name}/{path.stem}": read_jsonl(path) for path in sorted(workdir.glob("knowledge/*/*.jsonl"))}


def to_teach(config: ConfigDict, workdir: Path, domain: str) -> list[str]:
    """The formats for which the teacher must be asked: no file has their cards, and no statistics give them."""
    taught = ("rules", "thoughts") if config.teacher.kind != "annotations" else ()
    return [
        form for form in config.knowledge.formats if form in taught and not card_path(workdir, domain, form).is_file()
    ]


def without_teacher(
    config: ConfigDict,
    domains: Mapping[str, Domain],
    whole: Mapping[str, Domain],
    workdir: Path,
    count_tokens: CountTokens,
    say: Log,
) -> dict[str, Cards]:
    """The cards of every domain that are on disk already, or come from the training sessions alone. Writes nothing."""
    ready: dict[str, Cards] = {name: {} for name in domains}
    for name, domain in domains.items():
        taught = to_teach(config, workdir, name)
        for form in config.knowledge.formats:
            path = card_path(workdir, name, form)
            if path.is_file():
                ready[name][form] = knowledge.read_cards(path)
            elif form not in taught:
                ready[name][form] = _extract(config, domain, whole[name], form, None, count_tokens, say)
    return ready


def check_teacher(config: ConfigDict, ready: Mapping[str, Cards]) -> None:
    """Raise InputError, before anything is written, if a teacher that will be asked is not there or cannot be asked."""
    if not _complete(config, ready):
        check_cache_dir(teacher_cache(config))
        with open_config_teacher(config, lambda text: None) as teacher:
            teacher.check()


def distil(
    config: ConfigDict,
    domains: Mapping[str, Domain],
    whole: Mapping[str, Domain],
    ready: Mapping[str, Cards],
    workdir: Path,
    count_tokens: CountTokens,
    log: RunLog,
) -> dict[str, Cards]:
    """The cards of every domain: those of `ready`, and the teacher's. All are written; the teacher's process ends with this call."""
    cards: dict[str, Cards] = {name: {} for name in domains}
    with nullcontext() if _complete(config, ready) else _open(config, log) as teacher:
        for name, domain in domains.items():
            for form in config.knowledge.formats:
                path, made = card_path(workdir, name, form), ready[name].get(form)
                if made is None:
                    assert teacher is not None  # else all would be ready
                    made = _extract(config, domain, whole[name], form, asking(teacher, log), count_tokens, log.say)
                cards[name][form] = made
                if path.is_file():
                    continue
                knowledge.write_cards(path, made)
                log.say(f"{name}: {len(made)} cards of {form}" if made else nothing_found(name, form))
                log.event("knowledge", domain=name, format=form, cards=len(made))
        if teacher:
            log.event("teacher", **vars(teacher.stats))
    return cards


def _complete(config: ConfigDict, ready: Mapping[str, Cards]) -> bool:
    return all(form in forms for forms in ready.values() for form in config.knowledge.formats)


def nothing_found(domain: str, form: str) -> str:
    """What is said where a format yields no card."""
    return f"{domain}: no {form} reach the student, so this run does not measure what {form} are worth"


def _open(config: ConfigDict, log: RunLog) -> Teacher:
    if config.teacher.kind == "hf" and config.teacher.source == config.student.source:
        log.say(
            f"teacher: {config.teacher.source} is the student's own model, a stand-in; a real study names a real teacher"
        )
    return open_config_teacher(config, log.say)


def open_config_teacher(config: ConfigDict, log: Log) -> Teacher:
    """The teacher that the config names, to be used in a `with` statement."""
    return open_teacher(
        config.teacher.kind,
        config.teacher.source,
        teacher_cache(config),
        dtype=config.teacher.dtype,
        batch_size=config.teacher.batch_size,
        url=config.teacher.url,
        key_variable=config.teacher.key_variable,
        log=log,
        thinking=config.teacher.thinking,
    )


def _extract(
    config: ConfigDict,
    domain: Domain,
    whole: Domain,
    form: str,
    ask: Ask | None,
    count_tokens: CountTokens,
    say: Log,
) -> list[Card]:
    """One domain's cards of one format; `ask` is the teacher, None where it takes none."""
    settings, train = config.knowledge, domain.splits["train"]
    if form == "patterns":
        return knowledge.mine_patterns(
            train, domain.name, min_count=settings.min_count, limit=settings.limit, count_tokens=count_tokens
        )
    budget = {"limit": settings.limit, "max_tokens": settings.max_tokens, "count_tokens": count_tokens, "log": say}
    if form == "rules":
        if ask is None:
            return knowledge.annotation_rule_cards(train, domain.name, **budget)
        sessions = drawn(config, domain, whole, form)
        candidates = knowledge.reflect(sessions, ask, max_new_tokens=settings.max_new_tokens, log=say)
        return knowledge.merge_rules(candidates, domain.name, **budget)
    sessions = drawn(config, domain, whole, form)
    if ask is None:
        return knowledge.annotation_thoughts(sessions, domain.name, count_tokens=count_tokens)
    return knowledge.think(
        sessions, ask, domain.name, max_new_tokens=settings.max_new_tokens, count_tokens=count_tokens, log=say
    )


def drawn(config: ConfigDict, domain: Domain, whole: Domain, form: str) -> list[Session]:
    """Which sessions the teacher is asked about, for rules or thoughts: those in `domain` of as many as the config says
    (0: all), drawn from the `whole`, but one at least."""
    count = {"rules": config.knowledge.reflections, "thoughts": config.knowledge.thoughts}[form]
    sample, all_sessions = domain.splits["train"], whole.splits["train"]
    how = {"strategy": config.knowledge.strategy, "seed": config.seed}
    chosen = knowledge.sample_sessions(all_sessions, count=min(count or len(all_sessions), len(all_sessions)), **how)
    ids = {session.id for session in chosen}
    return [session for session in sample if session.id in ids] or knowledge.sample_sessions(sample, count=1, **how)


def asking(teacher: Teacher, log: RunLog) -> Ask:
    """The teacher's `ask_each` with a progress line per pass."""

    def ask(calls):
        with Progress(len(set(calls)), "teacher", log) as progress:
            return teacher.ask_each(calls, on_batch=lambda done, total: progress.update(done - progress.done))

    return ask
