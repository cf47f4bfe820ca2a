"""What the configs here share: the fields and their defaults (kdjax/config.py), their short versions, and grids of cells."""

from ml_collections import ConfigDict
from ml_collections.config_dict import create

from kdjax.config import base
from kdjax.errors import InputError

__all__ = ["base", "cell", "small", "smoke", "study", "variant"]


def cell(name: str, against: str = "", **fields) -> tuple:
    """A cell of a study: its name, what differs (knowledge__formats=("rules",) is knowledge.formats), and the cell it is compared with."""
    return name, tuple((field.replace("__", "."), value) for field, value in fields.items()), against


def study(name: str, about: str, cells: tuple) -> ConfigDict:
    """A grid of cells over the base config."""
    config = base(name)
    config.job = "study"
    config.study = create(
        about=about,  # the question, for the report
        cells=cells,
        seeds=(0, 1, 2),  # of cells with training, if only of a head; the others run once, with the first
        each_domain=False,  # of several domains: cells for each alone, and for the knowledge of all in each prompt, compared with the first cell
        dry_run=False,  # print the plan, and stop
    )
    return config


def small(config: ConfigDict, arg: str, cells: tuple) -> ConfigDict:
    """A study as FILE:arg names it: besides the versions of `variant`, "small" is one epoch of `cells`."""
    if arg != "small":
        return variant(config, arg, "small")
    config.train.epochs = 1
    config.study.cells = cells
    return config


def variant(config: ConfigDict, arg: str, *others: str) -> ConfigDict:
    """The config as FILE:arg names it: "" is itself, "smoke" its short version. Any but the `others` is an InputError."""
    if arg not in ("", "smoke"):
        known = "' or ':".join(("smoke", *others))
        raise InputError(f"--config: {config.name!r} has no version {arg!r}; leave it out, or write ':{known}'")
    return smoke(config) if arg else config


def smoke(config: ConfigDict) -> ConfigDict:
    """Shrink a run to seconds: a tiny random student, no teacher model, a few demo sessions. The numbers mean nothing."""
    config.name += "_smoke"
    config.teacher.kind = "annotations"
    config.student.update(source="tiny-random", pair_layers=1)
    config.knowledge.max_tokens = 400  # a token of the tiny model is one byte
    config.lora.r = 4
    config.train.update(max_steps=4, batch_size=8)
    config.eval.update(max_sessions=8, batch_size=8, buckets=1, max_new_tokens=48, constraint="items")
    config.eval.orders = min(2, config.eval.orders)
    return config
