"""The cache of one teacher's answers: a journal while a pass runs, sealed shards afterwards.

cache_dir/<first 16 of sha256(identity)>/
    manifest.json    who answers (identity), and how the answers came about (not part of any key)
    tokenizer/       so that a replay needs neither weights nor torch (not of a teacher that tokenizes by itself)
    journal.jsonl    a line per whole batch of an unfinished pass, with its checksum
    shards/<name>/   memory-mapped Arrow with its checksums
    damaged/         shards and journal lines that did not match their checksum; never read again
    lock             held by the run that asks
"""

import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kdjax.errors import InputError
from kdjax.folders import check_folder
from kdjax.lock import in_turn
from kdjax.sources import Tokenizer, read_tokenizer
from kdjax.teacher.calls import Answer, key_of_fields, sha256_json
from kdjax.teacher.journal import Journal, fsync_folder
from kdjax.teacher.replies import NoAnswer, read
from kdjax.teacher.shards import Damaged, open_shard, set_aside, shard_folders, write_shard

if TYPE_CHECKING:
    from datasets import Dataset


class TeacherCache:
    """The answers, by key, of the teacher that `identity` names (`open_teacher` says how). Opening writes nothing.

    An answer counts only where its checksum holds and its key is that of its fields. The rest is as if it were not
    there, is told in `damage`, and is set aside by the next run that asks. What an endpoint replied without answering
    counts neither: it is in `unanswered`, and may be asked again. (What a model generated always counts: it would
    generate the same again.)
    """

    def __init__(self, cache_dir: str | Path, identity: Mapping):
        self.identity = dict(identity)
        self.folder = Path(cache_dir).expanduser() / sha256_json(self.identity)[:16]
        self._journal = Journal(self.folder / "journal.jsonl")
        self._shards: dict[str, Dataset] = {}
        self.refresh()

    def __len__(self) -> int:
        return len(self._known - self.unanswered.keys())

    def __contains__(self, key: str) -> bool:
        return (key in self._sealed or key in self._pending) and key not in self.unanswered

    def __getitem__(self, key: str) -> Answer:
        if key not in self:
            raise KeyError(key)
        if key in self._pending:
            answer = self._pending[key]
        else:
            shard, row = self._sealed[key]
            answer = Answer.from_row(self._shards[shard][row])
        return answer if len(answer.token_ids) else _as_read(answer)

    def __iter__(self) -> Iterator[str]:
        yield from sorted(self._known - self.unanswered.keys())

    @property
    def _known(self) -> set[str]:
        return {*self._sealed, *self._pending}

    def sealed(self, key: str) -> bool:
        """Whether the answer is in a shard (not only in the journal)."""
        return key in self._sealed and key not in self.unanswered

    def tokenizer(self) -> Tokenizer | None:
        """The teacher's tokenizer, out of the cache itself; None for an endpoint, which tokenizes by itself."""
        if self.identity["kind"] == "http":
            return None
        return read_tokenizer(self.folder / "tokenizer", ends=False)

    @property
    def seconds_per_answer(self) -> float | None:
        """How long this teacher's answers took each, on whichever devices; None where there are none."""
        passes = read_manifest(self.folder)["passes"] if (self.folder / "manifest.json").is_file() else []
        answers = sum(entry["answers"] for entry in passes) + len(self._pending)
        seconds = sum(run["seconds"] for entry in passes for run in entry["runs"])
        seconds += sum(entry["seconds"] for entry in self._provenance)
        return seconds / answers if answers else None

    @property
    def damage(self) -> list[str]:
        """What on the disk is damaged, in a line each."""
        lines = [f"{self._journal.path}: line {number + 1} is damaged" for number in sorted(self._bad_lines)]
        return [*self._bad_shards.values(), *lines]

    def refresh(self) -> None:
        """Read what is on the disk. The journal comes first: a batch sealed meanwhile is seen twice, never missed."""
        journalled: dict[str, Answer] = {}
        self._provenance: list[dict] = []
        self._bad_lines: set[int] = set()
        for number, entry in enumerate(self._journal.read()):
            try:
                if entry is None:
                    raise Damaged("not what was written")
                answers, provenance = [Answer.from_row(row) for row in entry["answers"]], entry["provenance"]
                self._check_keys((row["key"], row["fields"]) for row in entry["answers"])
            except (Damaged, KeyError, TypeError, ValueError):
                self._bad_lines.add(number)
            else:
                journalled |= {answer.key: answer for answer in answers}
                self._provenance.append(provenance)
        self._sealed: dict[str, tuple[str, int]] = {}
        self._pending: dict[str, Answer] = {}
        self.unanswered: dict[str, NoAnswer] = {}
        self._bad_shards: dict[Path, str] = {}
        paths = shard_folders(self.folder / "shards")
        self._shards = {path.name: self._shards[path.name] for path in paths if path.name in self._shards}
        for path in paths:
            try:
                self._map(path)
            except Damaged as error:
                self._bad_shards[path] = f"{path} is damaged ({error}), with {self._noted_answers(path.name)} answers"
        for key, answer in journalled.items():
            if key not in self._sealed or (key in self.unanswered and _no_answer(answer) is None):
                self._take_up(answer)

    @contextmanager
    def writing(self, source: str, tokenizer: Tokenizer | None, log: Callable[[str], None]) -> Iterator[None]:
        """Be the one run that asks this teacher; another is waited for. `source` is what this run calls the teacher."""
        self.folder.mkdir(parents=True, exist_ok=True)
        waiting = f"another run asks this teacher ({self.folder}): waiting for its answers"
        with in_turn(self.folder / "lock", waiting, log):
            self.refresh()
            self._set_damage_aside(log)
            self._describe(source, tokenizer)
            if self._provenance and not self._pending:  # killed after the shard was whole; else the pass goes on
                self._close_pass()
            yield

    def append(self, answers: Sequence[Answer], provenance: Mapping) -> None:
        """Journal one whole batch (inside `writing`). `provenance`: device, versions or URL, batch size, seconds."""
        self._journal.append({"provenance": dict(provenance), "answers": [answer.to_row() for answer in answers]})
        for answer in answers:
            self._take_up(answer)
        self._provenance.append(dict(provenance))

    def _take_up(self, answer: Answer) -> None:
        """Serve what the journal holds."""
        self._pending[answer.key] = answer
        self._note(answer.key, _no_answer(answer))

    def _note(self, key: str, why: NoAnswer | None) -> None:
        if why is None:
            self.unanswered.pop(key, None)
        else:
            self.unanswered.setdefault(key, why)

    def seal(self) -> None:
        """Move the journal into a new shard (inside `writing`). A crash at any point loses and doubles nothing."""
        if self._pending:
            self._map(write_shard(self.folder / "shards", self._pending.values()))
        self._close_pass()

    def _close_pass(self) -> None:
        """Note a new shard in the manifest, with the journal's provenance, and end the journal, which is all in it."""
        manifest = read_manifest(self.folder)
        noted = {entry["shard"] for entry in manifest["passes"]}
        passes = [
            {"shard": name, "answers": len(shard), "runs": _by_setting(self._provenance)}
            for name, shard in self._shards.items()
            if name not in noted
        ]
        if passes:
            self._write_manifest(manifest | {"passes": [*manifest["passes"], *passes]})
        self._journal.remove()
        self._pending, self._provenance = {}, []

    def _map(self, path: Path) -> None:
        if path.name not in self._shards:
            shard = open_shard(path)
            if missing := {field.name for field in dataclasses.fields(Answer)} - {*shard.column_names}:
                raise Damaged(f"it has no column {min(missing)}")
            columns = (shard.data.column(name).to_pylist() for name in ("key", "fields"))
            self._check_keys(zip(*columns, strict=True))
            self._shards[path.name] = shard
        data = self._shards[path.name].data
        names = ("key", "fields", "text", "finish_reason", "completion_tokens")
        columns = (data.column(name).to_pylist() for name in names)
        for row, (key, fields, text, finish, written) in enumerate(zip(*columns, strict=True)):
            generated = len(data.column("token_ids")[row]) > 0
            why = None if generated else _why_none(text, finish, written, json.loads(fields)["max_new_tokens"])
            if why is None or key not in self:  # an answer given at last stands beside the failure before it
                self._sealed[key] = path.name, row
                self._note(key, why)

    def _check_keys(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Raise Damaged unless each key is that of the fields beside it."""
        for key, fields in pairs:
            if key != key_of_fields(self.identity, fields):
                raise Damaged(f"the answer {key} belongs to another call")

    def _noted_answers(self, shard: str) -> int | str:
        """How many answers a shard holds, by the manifest."""
        passes = read_manifest(self.folder)["passes"] if (self.folder / "manifest.json").is_file() else []
        return next((entry["answers"] for entry in passes if entry["shard"] == shard), "unnoted")

    def _set_damage_aside(self, log: Callable[[str], None]) -> None:
        """Keep what is damaged where nothing reads it, so that what it held can be asked again."""
        aside = self.folder / "damaged"
        if self.damage:
            aside.mkdir(exist_ok=True)
        for text in self.damage:
            log(f"{text}; set aside in {aside}, asked again where needed")
        for path in self._bad_shards:
            set_aside(path, aside)
        self._journal.repair(self._bad_lines, aside / "journal.jsonl")
        self._bad_shards, self._bad_lines = {}, set()

    def _describe(self, source: str, tokenizer: Tokenizer | None) -> None:
        """Note identity, tokenizer and this run's name for the teacher; the manifest, written last, makes it usable."""
        if not (self.folder / "manifest.json").is_file():
            if tokenizer:
                tokenizer.save(self.folder / "tokenizer")
            self._write_manifest({"identity": self.identity, "sources": [source], "passes": []})
            return
        known = read_manifest(self.folder)
        sources = known["sources"] if source in known["sources"] else [*known["sources"], source]
        passes = [entry for entry in known["passes"] if entry["shard"] in self._shards]  # not those set aside
        if known != (now := known | {"sources": sources, "passes": passes}):
            self._write_manifest(now)

    def _write_manifest(self, manifest: Mapping) -> None:
        aside = self.folder / "manifest.json.unfinished"
        with aside.open("w", encoding="utf-8") as file:
            json.dump(manifest, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        aside.rename(self.folder / "manifest.json")
        fsync_folder(self.folder)


def read_manifest(folder: Path) -> dict:
    """A teacher's manifest: `identity`, `sources` (names it was asked under), `passes` (provenance per shard).

    Raises:
        InputError: it is not readable, or does not belong to the folder that it lies in.
    """
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        whole = (
            isinstance(manifest["identity"], dict)
            and isinstance(manifest["sources"], list)
            and isinstance(manifest["passes"], list)
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: not a readable manifest ({error!r}); restore it, or delete {folder} to ask all calls again"
        ) from error
    if not whole or sha256_json(manifest["identity"])[:16] != folder.name:
        raise InputError(f"{path}: the identity does not belong to a folder of this name; restore the name or the file")
    return manifest


def _why_none(text: str, finish: str, written: int, most: int) -> NoAnswer | None:
    """Why an endpoint's reply, as it was recorded, is no answer; None if it is one."""
    try:
        read(text, finish, written, most)
    except NoAnswer as why:
        return why
    return None


def _no_answer(answer: Answer) -> NoAnswer | None:
    if len(answer.token_ids):
        return None
    return _why_none(answer.text, answer.finish_reason, answer.completion_tokens, answer.fields["max_new_tokens"])


def _as_read(answer: Answer) -> Answer:
    most = answer.fields["max_new_tokens"]
    text, finish = read(answer.text, answer.finish_reason, answer.completion_tokens, most)
    return dataclasses.replace(answer, text=text, finish_reason=finish)


def check_cache_dir(cache_dir: str) -> None:
    """Raise InputError where no folder can be; writes nothing. A folder that is there may be read-only, for a replay."""
    name, advice = f"config.teacher.cache_dir={cache_dir}", "choose another folder"
    try:
        folder = Path(cache_dir).expanduser()
    except RuntimeError as error:  # nobody's home
        raise InputError(f"{name} cannot be a folder ({error}); {advice}") from error
    if not os.path.isdir(folder):
        check_folder(folder, name, advice)


def teacher_folders(cache_dir: Path) -> list[Path]:
    """The folders of all teachers whose answers `cache_dir` holds, by name."""
    return sorted(path.parent for path in cache_dir.expanduser().glob("*/manifest.json"))


def _by_setting(provenance: Sequence[Mapping]) -> list[dict]:
    """Sum batches and seconds over the batches that ran in the same setting (device, versions, batch size)."""
    groups: dict[str, dict] = {}
    for entry in provenance:
        setting = {name: value for name, value in entry.items() if name != "seconds"}
        group = groups.setdefault(sha256_json(setting), setting | {"batches": 0, "seconds": 0.0})
        group["batches"] += 1
        group["seconds"] = round(group["seconds"] + entry["seconds"], 3)
    return list(groups.values())
