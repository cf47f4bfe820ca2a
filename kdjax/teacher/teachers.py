"""Open a teacher and ask it; whatever was asked before comes from the cache."""

import dataclasses
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from kdjax.errors import InputError
from kdjax.sources import Tokenizer, load_tokenizer, resolve
from kdjax.teacher.cache import TeacherCache, read_manifest, teacher_folders
from kdjax.teacher.calls import Answer, Call, Request, canonical_json, make_plan, make_request
from kdjax.teacher.endpoint import Endpoint
from kdjax.teacher.hf import HfWorker
from kdjax.teacher.http_teacher import HttpWorker
from kdjax.teacher.misses import explain_miss
from kdjax.teacher.replies import NoAnswer, cut_prompt, generated, name_failures

KINDS = ("hf", "http", "replay")


@dataclass
class Stats:
    """What a teacher did since it was opened. Tokens and seconds are of the calls asked, not of the cached ones."""

    asked: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0


class Worker(Protocol):
    """Who answers what the cache lacks."""

    setting: dict  # how the answers just given came about; recorded, not part of any key

    def check(self, requests: Sequence[Request]) -> None:
        """Raise InputError, before anything is asked, if a request does not suit the teacher."""

    def check_model(self) -> None:
        """Raise InputError if the teacher could not be asked at all. Nothing is loaded, nothing sent."""

    def start(self) -> None:
        """Be ready to answer. Raises InputError if the teacher cannot be."""

    def ask(self, batches: Sequence[Sequence[Request]]) -> Generator[list[tuple[Request, dict | NoAnswer]]]:
        """Replies as they come, with the columns of `Answer` that the teacher decides; a list is journalled as one.

        Raises InputError, when all that could be asked was, if something has no reply.
        """

    def close(self) -> None:
        """Give back what asking took."""


class Teacher:
    """A teacher with its cache. `worker` answers what the cache lacks; None is a replay, where a miss is an error.

    `tokenizer` is None where only the teacher has it: calls are then known by their messages. `thinking`: whether a
    reasoning model is told to think before it answers.
    """

    def __init__(
        self,
        cache: TeacherCache,
        tokenizer: Tokenizer | None,
        worker: Worker | None,
        source: str,
        batch_size: int,
        log: Callable[[str], None],
        thinking: bool = False,
    ):
        self.cache, self.tokenizer, self.thinking, self.stats = cache, tokenizer, thinking, Stats()
        self._worker, self._source, self._batch_size, self._log = worker, source, batch_size, log
        for text in cache.damage:
            log(f"teacher cache: {text}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def close(self) -> None:
        """End what the teacher runs, if anything."""
        if self._worker:
            self._worker.close()

    def ask(self, calls: Sequence[Call], on_batch: Callable[[int, int], None] | None = None) -> list[Answer]:
        """As `ask_each`, where each call must have its answer.

        Raises:
            InputError: as `ask_each`, and if a reply is no answer; how many, and why the first. What was answered is kept.
        """
        replies = self.ask_each(calls, on_batch)
        answers = [reply for reply in replies if not isinstance(reply, NoAnswer)]
        if len(answers) < len(replies):
            asked = {
                request.key: (request, reply) for request, reply in zip(map(self._request, calls), replies, strict=True)
            }
            failed = {key: (request, reply) for key, (request, reply) in asked.items() if isinstance(reply, NoAnswer)}
            total = len(asked)
            text = f"teacher {self._source}: {len(failed)} of {total} prompts have no answer"
            raise InputError(text + name_failures([*failed.values()], total - len(failed)))
        return answers

    def ask_each(
        self, calls: Sequence[Call], on_batch: Callable[[int, int], None] | None = None
    ) -> list[Answer | NoAnswer]:
        """Answer calls, in their order; equal calls are asked once. `on_batch(done, total)` counts distinct calls.

        A reply that is no answer (see `kdjax.teacher.replies`) stands in an answer's place. What an endpoint failed to
        answer is asked again by each call of this method; what a model generates is the same each time, and is not.

        An unfinished pass is continued: the plan of batches depends on the calls alone, and batches already journalled
        are skipped. All that is new is sealed at the end.

        Raises:
            InputError: a call does not fit the model, the model cannot be run, prompts have no reply (what was answered
                is kept), or (replay) a call is not in the cache.
        """
        on_batch = on_batch or (lambda done, total: None)
        requests = [self._request(call) for call in calls]
        distinct = {request.key: request for request in requests}
        unsealed = [request for request in distinct.values() if not self.cache.sealed(request.key)]
        if self._worker is None:
            self._refuse_misses(unsealed)
        asked_before = self.stats.asked
        if self._worker and unsealed:
            self._pass(self._worker, unsealed, len(distinct), on_batch)
        else:
            on_batch(len(distinct), len(distinct))
        self.stats.cached += len(distinct) - (self.stats.asked - asked_before)
        replies = {key: self._reply(key) for key in distinct}
        self._warn_of_cut_prompts([(distinct[key], reply) for key, reply in replies.items()])
        return [replies[request.key] for request in requests]

    def check(self) -> None:
        """Raise InputError if the model could not be run, or not be asked; it is not loaded."""
        if self.tokenizer:
            self.tokenizer.render([{"role": "user", "content": "?"}])
        recorded = self.tokenizer and len(
            self.cache
        )  # then neither torch nor weights may be needed; a key must be there
        if self._worker and not recorded:
            self._worker.check_model()

    def recorded(self, call: Call) -> Answer | NoAnswer | None:
        """What `ask_each` would give for `call` without asking; None where it would ask."""
        key = self._request(call).key
        return (
            self._reply(key) if key in self.cache or (self._worker is None and key in self.cache.unanswered) else None
        )

    def explain(self, call: Call) -> str:
        """Why `call` is not in the cache, field by field."""
        return explain_miss(self.cache, call, self.tokenizer, self.thinking)

    def _request(self, call: Call) -> Request:
        return make_request(self.cache.identity, call, self.tokenizer, self.thinking)

    def _reply(self, key: str) -> Answer | NoAnswer:
        """What is recorded under a key, as it is read today."""
        if key not in self.cache:
            return self.cache.unanswered[key]
        answer = self.cache[key]
        if self.tokenizer is None:
            return answer
        try:
            prompt, said = answer.prompt_ids.tolist(), answer.token_ids.tolist()
            text = generated(self.tokenizer, prompt, said, answer.finish_reason)
        except NoAnswer as why:
            return why
        return dataclasses.replace(answer, text=text)

    def _warn_of_cut_prompts(self, replies: Sequence[tuple[Request, Answer | NoAnswer]]) -> None:
        """Log a line where an endpoint counted fewer prompt tokens than the text can have."""
        counted = [(request, reply.prompt_tokens) for request, reply in replies if isinstance(reply, Answer)]
        cut = [
            (count, least)
            for request, count in counted
            if (least := cut_prompt([content for _, content in request.call.conversation], count))
        ]
        if cut:
            count, least = cut[0]
            self._log(
                f"teacher {self._source}: {len(cut)} of {len(replies)} prompts were probably cut: of at least {least} "
                f"tokens the endpoint counted {count}. Raise its context length (Ollama: num_ctx), and ask again with "
                "another teacher.cache_dir"
            )

    def _refuse_misses(self, requests: Sequence[Request]) -> None:
        known = (self.cache, self.cache.unanswered)
        missing = [request for request in requests if not any(request.key in where for where in known)]
        if missing:
            why = self.explain(missing[0].call)
            damage = "".join(f"{text}. " for text in self.cache.damage)
            raise InputError(
                f"replay of {self.cache.folder}: {len(missing)} calls are not in the cache. {damage}The first: {why}. "
                "Replay needs the configuration that was recorded; ask other calls with teacher kind 'hf' or 'http'"
            )

    def _pass(
        self, worker: Worker, requests: Sequence[Request], total: int, on_batch: Callable[[int, int], None]
    ) -> None:
        """Ask what is neither sealed nor journalled, batch by batch, and seal."""
        with self.cache.writing(self._source, self.tokenizer, self._log):
            plan = make_plan([request for request in requests if not self.cache.sealed(request.key)], self._batch_size)
            rest = [[request for request in batch if request.key not in self.cache] for batch in plan]
            missing = [request for batch in rest for request in batch]
            worker.check(missing)
            done = total - len(missing)
            if done:
                on_batch(done, total)
            if missing:
                self._log(f"teacher {self._source}: {done} of {total} answers are cached, asking {len(missing)}")
                worker.start()
                with closing(worker.ask([batch for batch in rest if batch])) as replies:
                    started = time.perf_counter()
                    for batch in replies:
                        self._keep(batch, worker.setting, time.perf_counter() - started)
                        done += len(batch)
                        on_batch(done, total)
                        started = time.perf_counter()
            self.cache.seal()

    def _keep(self, batch: Sequence[tuple[Request, dict | NoAnswer]], setting: dict, seconds: float) -> None:
        """Journal the replies of one batch, and count them."""
        answers = [
            Answer.from_row(
                {"key": request.key, "fields": canonical_json(request.fields)}
                | (reply.row if isinstance(reply, NoAnswer) else reply)
            )
            for request, reply in batch
        ]
        self.cache.append(answers, setting | {"batch_size": self._batch_size, "seconds": seconds})
        reasons = {request.key: reply for request, reply in batch if isinstance(reply, NoAnswer)}
        self.cache.unanswered.update(reasons)  # in more words than the rows hold
        self.stats.asked += len(answers)
        self.stats.prompt_tokens += sum(answer.prompt_tokens for answer in answers)
        self.stats.completion_tokens += sum(answer.completion_tokens for answer in answers)
        self.stats.seconds += seconds


def open_teacher(
    kind: str,
    source: str,
    cache_dir: str | Path,
    *,
    dtype: str = "float32",
    batch_size: int = 8,
    url: str = "",
    key_variable: str = "",
    log: Callable[[str], None] = print,
    thinking: bool = False,
) -> Teacher:
    """Open a teacher; use it in a `with` statement.

    Args:
        kind: "hf" runs the model that `source` names in transformers; "http" asks an OpenAI-compatible endpoint;
            "replay" answers from the cache alone.
        source: hf: a model source (see `kdjax.sources.resolve`). http: the model's name at the endpoint. replay: the
            source under which the answers were recorded, the start of a teacher's folder name or model digest, or ""
            where the cache holds one teacher.
        cache_dir: shared by all teachers and runs.
        dtype: of the weights and activations, hf only (a replay's is the recorded one).
        batch_size: prompts per forward pass, or requests under way at once; recorded, not part of any key.
        url: http only, what stands before "/chat/completions"; recorded, not part of any key.
        key_variable: http only, the environment variable with the API key; "" sends none.
        thinking: whether a reasoning model is told to think before it answers. Its thinking is cut out of its answers.

    Raises:
        InputError: an unknown kind or dtype, a source that is not there, a URL that is none, a damaged manifest.
    """
    if batch_size < 1:
        raise InputError(f"teacher batch_size must be at least 1, got {batch_size}")
    worker: Worker
    if kind == "hf":
        files = resolve(source)
        tokenizer = load_tokenizer(files)
        worker = HfWorker(files, tokenizer, dtype)
        cache = TeacherCache(cache_dir, {"kind": "hf", "model": files.digest, "dtype": dtype})
        return Teacher(cache, tokenizer, worker, source, batch_size, log, thinking)
    if kind == "http":
        worker = HttpWorker(Endpoint(url, source, key_variable, thinking, log), batch_size, log)
        cache = TeacherCache(cache_dir, {"kind": "http", "model": source})
        return Teacher(cache, None, worker, source, batch_size, log, thinking)
    if kind == "replay":
        cache = TeacherCache(cache_dir, _recorded_identity(Path(cache_dir), source))
        return Teacher(cache, cache.tokenizer(), None, source, batch_size, log, thinking)
    raise InputError(f"teacher kind {kind!r}: a teacher that answers prompts is one of {', '.join(KINDS)}")


def _recorded_identity(cache_dir: Path, source: str) -> dict:
    manifests = {folder.name: read_manifest(folder) for folder in teacher_folders(cache_dir)}
    matching = {
        name: manifest["identity"]
        for name, manifest in manifests.items()
        if source in ("", *manifest["sources"])
        or name.startswith(source)
        or str(manifest["identity"].get("model")).startswith(source)
    }
    if len(matching) != 1:
        known = "".join(
            f"\n  {name}: {manifest['identity']}, asked as {', '.join(manifest['sources'])}"
            for name, manifest in manifests.items()
        )
        what = f"{len(matching)} recorded teachers match" if manifests else "there is no recorded teacher"
        advice = (
            f"name one by the start of its folder's name:{known}"
            if known
            else "ask one first (teacher kind 'hf' or 'http')"
        )
        raise InputError(f"replay of {source!r} from {cache_dir}: {what}; {advice}")
    return next(iter(matching.values()))
