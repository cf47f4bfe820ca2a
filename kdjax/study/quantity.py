"""How much: which training sessions may yield knowledge, and which the student is trained on."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from ml_collections import ConfigDict

from kdjax.data import Domain
from kdjax.errors import InputError
from kdjax.knowledge import sample_sessions
from kdjax.reporting import RunLog, read_json, write_json
from kdjax.study.settings import USES
from kdjax.study.workdir import stage

Difficulty = Mapping[str, Mapping[str, float]]  # domain → session id → how hard it is
Chosen = Mapping[
    str, Mapping[str, Domain]
]  # "knowledge" and "training" → the domains with the training sessions chosen


def choose(
    config: ConfigDict,
    domains: Mapping[str, Domain],
    folder: Path,
    shared: Path | None,
    measure: Callable[[], Difficulty],
    log: RunLog,
) -> Chosen:
    """The training sessions that may yield knowledge, and those to train on; selection.json in `folder` tells them where they are a part.

    `measure` asks the untrained student how hard they are, where that is wanted; runs have that in common in `shared`.
    """
    if config.quantity.ratio == 1.0:
        return {use: dict(domains) for use in USES}
    hard = _difficulty(config, domains, folder, shared, measure, log) if measures_difficulty(config) else None
    chosen = {use: sampled(config, domains, use, hard) for use in USES}
    ids = {
        use: {name: [session.id for session in domain.splits["train"]] for name, domain in sample.items()}
        for use, sample in chosen.items()
    }
    write_json(folder / "selection.json", ids)
    log.say(_describe(config, domains, chosen))
    return chosen


def _difficulty(config, domains, folder, shared, measure, log) -> Difficulty:
    """From difficulty.json, or measured; with the same student, form of products and data it is the same."""
    places = [folder / "difficulty.json"]
    if shared:
        told = [config.student.to_dict(), config.prompting.to_dict()]
        told.append({name: domain.digest for name, domain in domains.items()})
        key = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
        places.append(shared / f"difficulty-{key}.json")
    known = next((place for place in places if place.is_file()), None)
    if known:
        measured = read_json(known)
        wanted = {name: {session.id for session in domain.splits["train"]} for name, domain in domains.items()}
        if {name: {*of} for name, of in measured.items() if isinstance(of, dict)} != wanted:
            raise InputError(
                f"{known}: not the difficulty of this run's training sessions; delete it to measure it anew"
            )
    else:
        with stage(log, "difficulty"):
            measured = measure()
    for place in places:
        write_json(place, measured)
    return measured


def sampled(
    config: ConfigDict, domains: Mapping[str, Domain], use: str, difficulty: Difficulty | None = None
) -> dict[str, Domain]:
    """The domains with `quantity.ratio` of their training sessions, where it applies to this `use`; validation and test as they are.

    Samples of one strategy and seed are nested, so that a curve over the ratio adds sessions and exchanges none.
    """
    settings = config.quantity
    if settings.ratio == 1.0 or use not in settings.applies_to:
        return dict(domains)

    def sample(domain: Domain) -> Domain:
        chosen = sample_sessions(
            domain.splits["train"],
            ratio=settings.ratio,
            strategy=settings.strategy,
            seed=(config.seed, 1),  # another draw than that of the sessions that the teacher is asked about
            difficulty=difficulty[domain.name] if difficulty else None,
        )
        return replace(domain, splits={**domain.splits, "train": chosen})

    return {name: sample(domain) for name, domain in domains.items()}


def measures_difficulty(config: ConfigDict) -> bool:
    """Whether the sample is chosen by what the untrained student is asked first."""
    return config.quantity.ratio < 1 and config.quantity.strategy == "difficulty"


def foreseen(config: ConfigDict, domains: Mapping[str, Domain], use: str) -> dict[str, Domain]:
    """`sampled` before any difficulty is measured: where it is to choose, as many other sessions stand for its choice."""
    unknown = {name: dict.fromkeys((s.id for s in domain.splits["train"]), 0.0) for name, domain in domains.items()}
    return sampled(config, domains, use, unknown)


def _describe(config: ConfigDict, domains: Mapping[str, Domain], chosen: Chosen) -> str:
    told = []
    for use, sample in chosen.items():
        counts = (
            f"{len(sample[name].splits['train'])} of {len(domains[name].splits['train'])} {name}" for name in domains
        )
        told.append(f"{use} from {', '.join(counts)}")
    return f"training sessions, {config.quantity.strategy} {config.quantity.ratio:.0%}: {'; '.join(told)}"
