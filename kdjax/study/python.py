"""Distillation from Python: sessions in, a Bundler out. It is a run like any other, in a folder of its own."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from kdjax.config import base
from kdjax.data.new_sessions import session_of_products
from kdjax.errors import InputError
from kdjax.reporting import write_jsonl
from kdjax.study.bundler import Bundler
from kdjax.study.cell import run

DOMAIN = "sessions"  # the name of the domain that the sessions form
SESSION_FIELDS = ("id", "products", "bundles", "split")


def distil(
    sessions: Sequence[Mapping[str, Any]],
    teacher: str | Mapping[str, Any] | None = None,
    student: str | None = None,
    *,
    workdir: str | Path = "runs/distil",
    formats: Sequence[str] = ("rules",),
    seed: int = 0,
    fields: Mapping[str, Any] | None = None,
) -> Bundler:
    """Fine-tune a student on annotated sessions, with a teacher's knowledge if there is one.

    The run leaves what every run does in `workdir` (report.html, metrics.json, adapter/, …); the same call again goes on
    where it stopped, or only loads what is there.

    Args:
        sessions: each {"products": [{"title": …, "categories": …}, …], "bundles": [[0, 2], …]}, bundles as 0-based
            positions; `"bundles": []` where annotators found none. "id" and "split" ("train", "validation", "test", for
            all sessions or for none) may be given. Without splits sessions are split 70 / 10 / 20 %.
        teacher: a model for Hugging Face transformers (a folder or a name on the hub), "annotations" for rules from
            statistics alone, or fields of `config.teacher` as {"kind": "http", "url": …, "source": …}. None: no knowledge.
        student: the base model; SmolLM2-135M-Instruct if None.
        workdir: the folder of the run.
        formats: what is asked of the teacher, of "patterns", "rules" and "thoughts".
        seed: of everything that is drawn.
        fields: other fields of the config by their dotted names, as {"train.epochs": 1}.

    Raises:
        InputError: a session or a field cannot be used, or the folder belongs to another run.
    """
    folder = Path(workdir).expanduser()
    config = base("distil")
    config.seed = seed
    config.data.update(source="jsonl", root=str(folder / "data"), domains=(DOMAIN,))
    config.knowledge.formats = tuple(formats) if teacher is not None else ()
    config.teacher.update(_teacher(teacher))
    if student is not None:
        config.student.source = student
    _update(config, fields or {})
    _write(sessions, folder / "data" / DOMAIN)
    run(config, folder / "run")
    return Bundler.load(folder / "run" / "adapter", dtype=config.student.dtype)


def _teacher(teacher: str | Mapping[str, Any] | None) -> Mapping[str, Any]:
    if teacher is None or isinstance(teacher, Mapping):
        return teacher or {}
    return {"kind": teacher} if teacher == "annotations" else {"kind": "hf", "source": teacher}


def _update(config: ConfigDict, fields: Mapping[str, Any]) -> None:
    for name, value in fields.items():
        *sections, field = name.split(".")
        try:
            section = reduce(getitem, sections, config)
            if field not in section:
                raise KeyError(field)
            section[field] = value
        except (KeyError, TypeError) as error:
            raise InputError(
                f"fields: {name}={value!r} cannot be set ({error}); kdjax/config.py has all fields"
            ) from error


def _write(sessions: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """The sessions as the files of a domain; what is there already must be the same, since a run goes on with it."""
    items: dict[str, dict] = {}
    rows = []
    for number, given in enumerate(sessions):
        where = f"sessions[{number}]"
        if unknown := sorted(given.keys() - {*SESSION_FIELDS}):
            raise InputError(f"{where}: there is no field {unknown[0]!r}; known are {', '.join(SESSION_FIELDS)}")
        try:
            session = session_of_products(given["products"])
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
        except KeyError as error:
            raise InputError(f"{where}: {error} is missing") from error
        ids = [_item(items, title, paths) for title, paths in zip(session.titles, session.categories, strict=True)]
        if len(set(ids)) < len(ids):
            twice = next(place for place, id in enumerate(ids) if id in ids[:place])
            raise InputError(f"{where}: the product {session.titles[twice]!r} is in the session twice; leave one out")
        row: dict[str, Any] = {"id": str(given.get("id", f"s{number}")), "items": ids}
        if "bundles" in given:
            row["bundles"] = [_bundle(bundle, ids, where) for bundle in given["bundles"]]
        rows.append(row | ({"split": given["split"]} if "split" in given else {}))
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / "items.jsonl", items.values())
    write_jsonl(folder / "sessions.jsonl", rows)


def _item(items: dict[str, dict], title: str, paths: tuple) -> str:
    """The id of a product: the same for the same title and categories."""
    told = json.dumps([title, paths])
    id = hashlib.sha256(told.encode()).hexdigest()[:16]
    items[id] = {"id": id, "title": title, "categories": [list(path) for path in paths]}
    return id


def _bundle(bundle: Sequence[int], ids: Sequence[str], where: str) -> list[str]:
    for position in bundle:
        if not isinstance(position, int) or not 0 <= position < len(ids):
            raise InputError(f"{where}: the bundle {list(bundle)} names position {position!r}, of 0 to {len(ids) - 1}")
    return [ids[position] for position in bundle]
