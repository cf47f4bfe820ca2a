"""The folder of a run: it belongs to one config, and re-running the same command continues what is unfinished in it."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import jax
from ml_collections import ConfigDict

from kdjax.data import Domain
from kdjax.errors import InputError
from kdjax.folders import check_folder
from kdjax.lock import LOCK, check_free, locked
from kdjax.reporting import RunLog, is_leftover, read_json, read_jsonl, write_json
from kdjax.study.settings import config_hash, differences

PACKAGES = (
    "kdjax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "tokenizers",
    "safetensors",
    "datasets",
    "scikit-learn",
    "numpy",
)


def check_workdir(workdir: Path, config: ConfigDict, domains: Mapping[str, Domain]) -> None:
    """Check that the folder is new, or belongs to this config and this data; and that no other process works in it. Writes nothing.

    Raises:
        InputError: the folder belongs to another config or to other data; the differing fields are named. Or another process
            works in it, or it cannot be written to, or holds files but no config.json.
    """
    check_place(workdir)
    check_free(workdir)
    check_content(workdir, config, domains)


def check_place(workdir: str | Path) -> None:
    """Raise InputError if no folder can be written to there (see `check_folder`)."""
    check_folder(Path(workdir), f"--workdir={workdir}", "choose another --workdir")


def check_content(workdir: Path, config: ConfigDict, domains: Mapping[str, Domain]) -> None:
    """The part of `check_workdir` about what is in the folder."""
    if (workdir / "config.json").is_file():
        recorded, now = record(workdir), _identity(config, domains)
        changed = differences({name: recorded[name] for name in now}, now)
        if changed:
            raise InputError(
                f"{workdir} belongs to another run; it differs in: {'; '.join(changed)}. Choose another --workdir, or delete that folder"
            )
    elif workdir.is_dir() and any(path.name != LOCK and not is_leftover(path) for path in workdir.iterdir()):
        raise InputError(
            f"{workdir} is not empty and has no config.json, so it is not a run of kdjax; choose another --workdir"
        )


def check_study(workdir: Path) -> None:
    """Raise InputError if the folder holds something else than a study, whose files would be mixed with it or overwritten."""
    there = {path.name for path in workdir.iterdir() if not is_leftover(path)} if workdir.is_dir() else set()
    if "cells" not in there and there - {LOCK, "shared"}:
        raise InputError(
            f"{workdir} is not empty and has no cells/, so it is not a study of kdjax; choose another --workdir"
        )


@contextmanager
def claim(workdir: Path, config: ConfigDict, domains: Mapping[str, Domain]) -> Iterator[Callable[[], None]]:
    """Work in the folder (after `check_workdir`): its lock is held until the end, and the first time config.json is written.

    Yields the check of `locked`, that the folder is still the one that was locked.

    Raises:
        InputError: another process works there, or has begun another run there since the check; or nothing can be written.
    """
    with ExitStack() as held:
        try:
            check_held = held.enter_context(locked(workdir))
            check_content(workdir, config, domains)
            if not (workdir / "config.json").is_file():
                versions = {name: version(name) for name in PACKAGES}
                about = {"hash": config_hash(config), "versions": versions, "devices": []}
                write_json(workdir / "config.json", _identity(config, domains) | about)
        except OSError as error:
            raise InputError(f"{workdir}: cannot be written ({error}); choose another --workdir") from error
        yield check_held


def _identity(config: ConfigDict, domains: Mapping[str, Domain]) -> dict:
    """What a run is: its resolved config and its data."""
    data = {
        name: {"digest": domain.digest, "source": domain.source, "synthetic": domain.synthetic}
        for name, domain in domains.items()
    }
    return {"config": json.loads(json.dumps(config.to_dict())), "data": data}


def record_devices(workdir: Path) -> None:
    """Add the devices to config.json. Not in `claim`: JAX takes a part of a GPU's memory when it first looks, and the teacher comes before."""
    devices = [f"{device.platform} {device.device_kind}" for device in jax.devices()]
    write_json(workdir / "config.json", record(workdir) | {"devices": devices})


def record(workdir: Path) -> dict:
    """What `claim` wrote: config, hash, versions, devices, data. InputError if it is not that."""
    path = workdir / "config.json"
    try:
        recorded = read_json(path)
        if not {"config", "data"} <= recorded.keys():
            raise InputError(f"{path}: config or data is missing")
    except InputError as error:
        raise InputError(f"{error}; this is not the config.json of a run, choose another --workdir") from error
    return recorded


@contextmanager
def stage(log: RunLog, name: str) -> Iterator[None]:
    """Time a part of the run; its start and its end go to log.jsonl."""
    started = time.perf_counter()
    log.event("begin", name=name)
    yield
    log.event("stage", name=name, seconds=round(time.perf_counter() - started, 3))


def stage_seconds(workdir: Path) -> dict[str, float]:
    """Seconds per stage, summed over all parts of a continued run; a part that was killed counts up to its last event."""
    seconds: dict[str, float] = {}
    begun: dict | None = None
    last: dict = {}
    for row in read_jsonl(workdir / "log.jsonl"):
        if begun and row["event"] in ("begin", "stage"):
            whole = row["event"] == "stage"
            spent = row["seconds"] if whole else (_moment(last) - _moment(begun)).total_seconds()
            seconds[begun["name"]] = round(seconds.get(begun["name"], 0.0) + spent, 3)
            begun = None
        if row["event"] == "begin":
            begun = row
        last = row
    return seconds


def _moment(row: dict) -> datetime:
    return datetime.fromisoformat(row["time"])
