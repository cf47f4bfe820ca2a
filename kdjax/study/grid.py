"""A study's grid: cells that differ from one config in a few fields, each run with several seeds where training is involved."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from ml_collections import ConfigDict

from kdjax.errors import InputError
from kdjax.study.settings import check, config_hash

JOBS = ("run", "aicl")  # what a cell may be
SHARED = ("seed", "data.source", "data.root", "eval.max_sessions")  # not for a cell to change


@dataclass(frozen=True)
class Run:
    """One experiment of a study. Its folder is named by its config, so that a changed one is another."""

    seed: int
    config: ConfigDict
    folder: Path

    @property
    def finished(self) -> bool:
        """Whether its results are there."""
        return (self.folder / "metrics.json").is_file()


@dataclass(frozen=True)
class GridCell:
    """A row of the study's table: what differs, and the name of the cell it is compared with ("": none)."""

    name: str
    fields: dict
    against: str
    runs: tuple[Run, ...]


def grid(config: ConfigDict, workdir: Path) -> list[GridCell]:
    """The cells of `config.study.cells`, (name, ((field, value), …), name of the cell it is compared with) each.

    Raises:
        InputError: two cells of one name, a field that is not there or has another type, a reference that is no cell, or a
            value that no run would take; names the cell.
    """
    if not config.study.cells:
        raise InputError("config.study.cells is empty: a study has cells")
    seeds = tuple(config.study.seeds)
    if not seeds or len(set(seeds)) != len(seeds):
        raise InputError(f"config.study.seeds={seeds!r}: name at least one, and each once")
    cells = [*config.study.cells]
    if config.study.each_domain and len(config.data.domains) > 1:
        first = cells[0][0]
        cells += [(f"{domain} alone", (("data.domains", (domain,)),), first) for domain in config.data.domains]
        if config.knowledge.formats:
            cells.append(("knowledge of all domains", (("knowledge.all_domains", True),), first))
    names = [name for name, _, _ in cells]
    for name, _, against in cells:
        if names.count(name) > 1:
            raise InputError(f"config.study.cells: two cells are named {name!r}")
        if against and (against not in names or against == name):
            raise InputError(f"config.study.cells: {name!r} is compared with {against!r}; the cells are {names}")
    return [_cell(config, workdir, name, dict(fields), against) for name, fields, against in cells]


def _cell(config: ConfigDict, workdir: Path, name: str, fields: dict, against: str) -> GridCell:
    plain = config.copy_and_resolve_references()
    plain.unlock()
    del plain["study"]
    plain.update(job="run", name=f"{config.name}: {name}")
    _update(plain, name, fields)
    if plain.job not in JOBS:
        raise InputError(f"study cell {name!r}: job={plain.job!r} cannot be a cell; choose from {', '.join(JOBS)}")
    fits = plain.student.answer == "pairs" and not plain.student.adapter  # a head, to the untrained states
    trains = plain.job == "run" and (plain.train.max_steps != 0 or fits)
    seeds = config.study.seeds if trains else config.study.seeds[:1]
    return GridCell(name, fields, against, tuple(_run(plain, workdir, name, seed) for seed in seeds))


def _run(plain: ConfigDict, workdir: Path, name: str, seed: int) -> Run:
    config = plain.copy_and_resolve_references()
    config.seed = seed
    try:
        check(config)
    except InputError as error:
        raise InputError(f"study cell {name!r}: {error}") from error
    slug = re.sub(r"\W+", "-", name.lower()).strip("-")
    return Run(seed, config, workdir / "cells" / f"{slug}-seed{seed}-{config_hash(config)[:8]}")


def _update(config: ConfigDict, name: str, fields: dict) -> None:
    there = _field_names(config)
    for field, value in fields.items():
        if field in SHARED:
            raise InputError(
                f"study cell {name!r}: {field} is the same in all cells, which are compared; set it for the study"
            )
        if field not in there:
            near = get_close_matches(field, there, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(f"study cell {name!r}: the config has no field {field!r}{hint}")
        try:
            config.update_from_flattened_dict({field: value})
        except (TypeError, ValueError) as error:
            raise InputError(f"study cell {name!r}: {field}={value!r} does not fit ({error})") from error


def _field_names(config: ConfigDict, before: str = "") -> Sequence[str]:
    names: list[str] = []
    for name, value in config.items():
        names += _field_names(value, f"{before}{name}.") if isinstance(value, ConfigDict) else [before + name]
    return names
