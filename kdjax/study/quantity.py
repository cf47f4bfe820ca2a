"""How much: which training sessions may yield knowledge, and which the student is trained on."""

from collections.abc import Mapping
from dataclasses import replace

from ml_collections import ConfigDict

from kdjax.data import Domain
from kdjax.knowledge import sample_sessions

Difficulty = Mapping[str, Mapping[str, float]]  # domain → session id → how hard it is


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
            seed=config.seed,
            difficulty=difficulty[domain.name] if difficulty else None,
        )
        return replace(domain, splits={**domain.splits, "train": chosen})

    return {name: sample(domain) for name, domain in domains.items()}


def describe_sample(
    config: ConfigDict, domains: Mapping[str, Domain], chosen: Mapping[str, Mapping[str, Domain]]
) -> str:
    """What was chosen, for the log."""
    told = []
    for use, sample in chosen.items():
        counts = (
            f"{len(sample[name].splits['train'])} of {len(domains[name].splits['train'])} {name}" for name in domains
        )
        told.append(f"{use} from {', '.join(counts)}")
    return f"training sessions, {config.quantity.strategy} {config.quantity.ratio:.0%}: {'; '.join(told)}"
