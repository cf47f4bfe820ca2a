"""The folder of a run: it belongs to one config, and re-running the same command continues what is unfinished in it."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import jax
from ml_collections import ConfigDict

from kdjax.data import Domain
from kdjax.errors import InputError
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
    """Make sure that the folder is new, or belongs to this config and this data. Writes nothing.

    Raises:
        InputError: the folder belongs to another config or to other data; the differing fields are named. Or it holds files
            but no config.json, or is a file.
    """
    try:
        begun = (workdir / "config.json").is_file()
    except OSError as error:  # a name that no file system takes
        raise InputError(f"{workdir}: cannot be a folder ({error.strerror}); choose another --workdir") from error
    if begun:
        recorded, now = record(workdir), _identity(config, domains)
        changed = differences({name: recorded[name] for name in now}, now)
        if changed:
            raise InputError(
                f"{workdir} belongs to another run; it differs in: {'; '.join(changed)}. Choose another --workdir"
            )
    elif workdir.exists() and not workdir.is_dir():
        raise InputError(f"{workdir} is a file; choose another --workdir")
    elif workdir.is_dir() and any(not is_leftover(path) for path in workdir.iterdir()):
        raise InputError(
            f"{workdir} is not empty and has no config.json, so it is not a run of kdjax; choose another --workdir"
        )


def claim(workdir: Path, config: ConfigDict, domains: Mapping[str, Domain]) -> None:
    """Write config.json on the first run (after `check_workdir`). InputError if nothing can be written there."""
    path = workdir / "config.json"
    if path.is_file():
        return
    versions = {name: version(name) for name in PACKAGES}
    told = _identity(config, domains) | {"hash": config_hash(config), "versions": versions, "devices": []}
    try:
        write_json(path, told)
    except (OSError, ValueError) as error:  # the latter: a zero byte in the name
        raise InputError(f"{workdir}: cannot be written ({error}); choose another --workdir") from error


def _identity(config: ConfigDict, domains: Mapping[str, Domain]) -> dict:
    """What a run is: its resolved config and its data."""
    data = {
        name: {"digest": domain.digest, "source": domain.source, "synthetic": domain.synthetic}
        for name, domain in domains.items()
    }
    return {"config": json.loads(json.dumps(config.to_dict())), "data": data}


def record_devices(workdir: Path) -> None:
    """Add the devices to config.json. Not in `claim`: JAX takes a GPU's memory when it first looks, and the teacher comes before."""
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
