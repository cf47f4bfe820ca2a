"""Bundles for new sessions from a trained adapter, with the prompt it was trained with."""

from pathlib import Path

from ml_collections import ConfigDict

from kdjax.data import load_new_sessions
from kdjax.decoding import Constraint
from kdjax.errors import InputError
from kdjax.prompting import ANSWER_MARKER, INSTRUCTION, parse_answer
from kdjax.reporting import Progress, RunLog, write_jsonl
from kdjax.sources import load_tokenizer, resolve
from kdjax.student import check_student, load_student
from kdjax.study.answering import answerer
from kdjax.study.examples import check_answers, check_questions
from kdjax.study.export import load_adapter_head, trained_with
from kdjax.study.settings import check, devices
from kdjax.study.telling import Teller, ask
from kdjax.study.workdir import check_workdir, claim


def generate(config: ConfigDict, workdir: str) -> None:
    """Write <workdir>/bundles.jsonl: {"session_id", "bundles": [[item ids]], "valid", "text"} per session, in their order.

    Raises:
        InputError: a file is missing or broken, or the adapter was trained on another base model.
    """
    for field in ("sessions_file", "items_file"):
        if not config.generate[field]:
            raise InputError(
                f"config.generate.{field} is empty; name the JSONL file (the format is in configs/generate.py)"
            )
    if not config.student.adapter:
        raise InputError("config.student.adapter is empty; name the adapter folder of a finished run (runs/…/adapter)")
    trained = trained_with(Path(config.student.adapter))
    config = config.copy_and_resolve_references()
    for section, fields in (("eval", ("orders", "max_new_tokens")), ("student", ("answer", "pair_layers"))):
        for field in fields:
            value = config[section][field] = config[section][field] or trained[field]
            if section == "student" and value != trained[field]:
                raise InputError(
                    f"config.student.{field}={value!r}: {config.student.adapter} was trained with {trained[field]!r}"
                )
    check(config)
    domain = _domain(trained["knowledge"], config.generate.domain)
    sessions = load_new_sessions(config.generate.sessions_file, config.generate.items_file)
    files = resolve(config.student.source)
    if files.digest != trained["base"]["digest"]:
        raise InputError(
            f"{config.student.adapter} was trained on {trained['base']['source']}, and config.student.source={config.student.source} "
            "holds other weights"
        )
    if trained["instruction"] != INSTRUCTION:
        raise InputError(
            f"{config.student.adapter} was trained with another instruction than this version of kdjax gives"
        )
    kept = trained["base"].get("quantization")
    if config.student.quantization not in (None, kept):
        raise InputError(
            f"{config.student.adapter} was trained on a base kept in {kept or 'full'}, not {config.student.quantization}; "
            "leave config.student.quantization empty"
        )
    settings = {"adapter": config.student.adapter, "quantization": kept, "dtype": config.student.dtype}
    shape, tokenizer = check_student(config.student.source, **settings), load_tokenizer(files)
    marker = ANSWER_MARKER if trained["thoughts_first"] else ""
    form = Constraint(config.eval.constraint, marker, tokenizer.answer_padding)
    asked = [(domain, session) for session in sessions]
    teller = Teller(tokenizer, trained["products"], trained["knowledge"], trained["shown"])
    questions = ask(teller, asked, config.eval.orders)
    check_questions(config, questions.prompts, shape.max_position_embeddings)
    check_answers(config, tokenizer, form, sessions)
    head = None
    if config.student.answer == "pairs":
        head = load_adapter_head(
            Path(config.student.adapter), trained["products"], shape.hidden_size, config.student.pair_layers
        )
    check_workdir(Path(workdir), config, {})
    with claim(Path(workdir), config, {}) as check_held, RunLog(workdir, check=check_held) as log:
        parallel = devices(config)
        student = load_student(config.student.source, **settings, place=parallel.place)
        answer = answerer(student, parallel, config, form)
        adapter = {"adapter": student.adapter, "head": head} if head else student.adapter
        with Progress(len(sessions) * config.eval.orders, "sessions", log) as progress:
            completions = answer(adapter, questions, progress.update)
        rows = [_row(session, completion.text) for session, completion in zip(sessions, completions, strict=True)]
        path = Path(workdir) / "bundles.jsonl"
        write_jsonl(path, rows)
        log.say(f"{len(rows)} sessions, {sum(len(row['bundles']) for row in rows)} bundles → {path}")


def _row(session, text: str) -> dict:
    answer = parse_answer(text, len(session))
    bundles = dict.fromkeys(
        tuple(session.items[number - 1] for number in dict.fromkeys(bundle)) for bundle in answer.bundles
    )
    return {
        "session_id": session.id,
        "bundles": [list(bundle) for bundle in bundles if len(bundle) > 1],
        "valid": answer.valid,
        "text": text,
    }


def _domain(by_domain: dict[str, str], wanted: str) -> str:
    """Whose knowledge and demonstrations stand in the prompt."""
    if not wanted and len(by_domain) == 1:
        return next(iter(by_domain))
    if wanted not in by_domain:
        raise InputError(
            f"config.generate.domain={wanted!r}: the adapter was trained on {', '.join(by_domain)}; name one of them"
        )
    return wanted
