"""Bundles for new sessions from a trained adapter: lines of sessions in, lines of bundles out."""

import io
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TextIO

from ml_collections import ConfigDict

from kdjax.data import NewSession, NewSessionReader, Session
from kdjax.errors import InputError
from kdjax.reporting import ConsoleLog, Progress, json_line, plain_console
from kdjax.study.bundler import Answer, Bundler
from kdjax.study.export import trained_with
from kdjax.study.settings import check, devices
from kdjax.study.workdir import check_workdir, claim

STANDARD = "-"  # standard input, standard output
CHUNK = 256  # sessions that are read, answered and written together


def generate(config: ConfigDict, workdir: str) -> None:
    """Answer each line of config.generate.sessions_file with a line (configs/generate.py has the forms), as they come.

    Raises:
        InputError: a file cannot be read or written, the adapter or its base cannot be used, or, with
            config.generate.strict, a line is not in its form.
    """
    wanted = config.generate
    if not config.student.adapter:
        raise InputError("config.student.adapter is empty; name the adapter folder of a finished run (runs/…/adapter)")
    if not wanted.sessions_file:
        raise InputError(
            "config.generate.sessions_file is empty; name the JSONL file, or - for standard input (the format is in "
            "configs/generate.py)"
        )
    if not 0.0 <= wanted.min_probability <= 1.0:
        raise InputError(f"config.generate.min_probability={wanted.min_probability} must be between 0 and 1")
    trained = trained_with(Path(config.student.adapter))
    config = _as_trained(config, trained)
    check(config)
    log = ConsoleLog(plain_console(stderr=wanted.out == STANDARD))  # bundles alone go to standard output
    reader = NewSessionReader(Path(wanted.items_file) if wanted.items_file else None, wanted.strict)
    with ExitStack() as files:
        lines = files.enter_context(_open_lines(wanted.sessions_file))
        bundler = Bundler.load(
            config.student.adapter,
            source=config.student.source,
            dtype=config.student.dtype,
            orders=config.eval.orders,
            parallel=devices(config),
        )
        bundler.domain(wanted.domain)  # an unknown one is an error before anything is written
        if not wanted.out:
            check_workdir(Path(workdir), config, {})
            files.enter_context(claim(Path(workdir), config, {}))
        out = files.enter_context(_open_out(wanted.out, Path(workdir)))
        _answer_all(bundler, reader, lines, out, config, log)


def _as_trained(config: ConfigDict, trained: Mapping) -> ConfigDict:
    """The config with what the adapter says of itself.

    Raises:
        InputError: the config asks for another kind of student, or for a base that is kept otherwise than in training.
    """
    kept = trained["base"].get("quantization")
    if config.student.quantization not in (None, kept):
        raise InputError(
            f"{config.student.adapter} was trained on a base kept in {kept or 'full'}, not {config.student.quantization}; "
            "leave config.student.quantization empty"
        )
    config = config.copy_and_resolve_references()
    config.eval.orders = config.eval.orders or trained["orders"]
    for field in ("answer", "pair_layers"):
        value = config.student[field] = config.student[field] or trained[field]
        if value != trained[field]:
            raise InputError(
                f"config.student.{field}={value!r}: {config.student.adapter} was trained with {trained[field]!r}"
            )
    return config


def _answer_all(
    bundler: Bundler, reader: NewSessionReader, lines: TextIO, out: TextIO, config: ConfigDict, log: ConsoleLog
) -> None:
    wanted, sessions, bundles, none, products, lacking = config.generate, 0, 0, 0, 0, 0
    found = reader.read(lines, wanted.sessions_file)
    at_once = 1 if wanted.sessions_file == STANDARD else CHUNK  # who writes a line waits for its answer
    with Progress(0, "sessions", log) as progress:
        while chunk := list(islice(found, at_once)):
            readable = [one.session for one in chunk if one.session]
            without = bundler.without_categories(readable)
            if without and not lacking:
                log.say(
                    "warning: products without categories, which the adapter was trained with; expect worse bundles"
                )
            lacking, products = lacking + without, products + sum(map(len, readable))
            for row in _rows(bundler, chunk, config):
                out.write(json_line(row) + "\n")
                bundles, none = bundles + len(row["bundles"]), none + (not row["bundles"])
            out.flush()
            sessions += len(chunk)
            progress.update(len(chunk))
    notes = dict(reader.notes) | ({f"of {products} products without categories": lacking} if lacking else {})
    said = "".join(f"; {count} {what}" for what, count in notes.items())
    log.say(f"{sessions} sessions, {bundles} bundles, {none} sessions without a bundle{said}")
    if not sessions:
        raise InputError(f"{wanted.sessions_file}: there are no sessions in it")


def _rows(bundler: Bundler, chunk: list[NewSession], config: ConfigDict) -> Iterator[dict]:
    """A row per line of the chunk, in its order."""
    wanted = config.generate
    sessions = [one.session for one in chunk if one.session]
    questions = bundler.ask(sessions, wanted.domain)
    too_long = bundler.too_long(questions)
    if too_long and wanted.strict:
        place, tokens = next(iter(too_long.items()))
        raise InputError(
            f"{wanted.sessions_file}: session {sessions[place].id!r} has {tokens} tokens, which is too long"
        )
    fitting = [place for place in range(len(sessions)) if place not in too_long]
    answers = dict(zip(fitting, bundler.answer(questions.some(fitting), wanted.min_probability), strict=True))
    place = 0
    for one in chunk:
        if one.session is None:
            yield {"session_id": one.id, "bundles": [], "error": one.error}
            continue
        if place in answers:
            yield _row(one.session, answers[place], wanted.pairs)
        else:
            error = f"{too_long[place]} tokens, which is more than the student reads"
            yield {"session_id": one.id, "bundles": [], "error": error}
        place += 1


def _row(session: Session, answer: Answer, pairs: bool) -> dict:
    bundles = []
    for bundle in answer.bundles:
        row: dict = {"items": [session.items[place] for place in bundle.products]}
        if bundle.probability is not None:
            row["probability"] = round(bundle.probability, 4)
        bundles.append(row)
    row = {"session_id": session.id, "bundles": bundles}
    if answer.no_bundle is not None:
        row["no_bundle"] = round(answer.no_bundle, 4)
    if pairs and answer.pairs is not None:
        items = session.items
        row["pairs"] = [
            [items[i], items[j], round(float(answer.pairs[i, j]), 4)]
            for i in range(len(items))
            for j in range(i + 1, len(items))
        ]
    return row


def _open_lines(name: str) -> TextIO:
    if name == STANDARD:
        return io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", errors="replace")
    try:
        return Path(name).open(encoding="utf-8-sig", errors="replace")
    except (OSError, ValueError) as error:
        raise InputError(f"{name}: the sessions cannot be read ({error})") from error


def _open_out(name: str, workdir: Path) -> TextIO:
    if name == STANDARD:
        return sys.stdout
    path = Path(name) if name else workdir / "bundles.jsonl"
    try:
        return path.open("w", encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be written ({error})") from error
