"""The adapter folder that others use: PEFT's files, the tokenizer, the prompt it was trained with, and golden outputs to check by.

It is read here, too, where a run or a shop goes on from it.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np

from kdjax.data import Session
from kdjax.decoding import Constraint, Generator, NoBundle, StateReader
from kdjax.errors import InputError
from kdjax.prompting import INSTRUCTION, ProductForm
from kdjax.reporting import read_json, read_jsonl, write_json, write_jsonl
from kdjax.sources import hub_name, license_of
from kdjax.student import PairHead, Student, load_pair_head, save_pair_head
from kdjax.study.answering import judge
from kdjax.study.telling import Shown, Teller
from kdjax.training import Parallel

DEMONSTRATIONS = "demonstrations.jsonl"
GOLDEN_TITLES = ("Espresso machine 15 bar", "Burr coffee grinder", "Garden hose 20 m", "Espresso cups, set of 4")
GOLDEN_TOKENS = 16
GOLDEN_LOGITS = 20


def export_adapter(
    folder: Path,
    student: Student,
    head: PairHead | None,
    teller: Teller,
    answer: Mapping,
    run: Mapping,
    parallel: Parallel,
) -> None:
    """Write `folder`, all but its README.md; the adapter's tensors are read back and compared.

    `head` is the pair head of a student that judges pairs, `teller` tells its sessions, `answer` is how it answers, for
    job="generate", and `run` the run's config.json. The golden prompt is of invented products, with what the first domain has
    to say.
    """
    student.save_adapter(folder)
    student.tokenizer.save(folder)
    if head:
        save_pair_head(folder, head)
    described = {
        "base": {
            "source": student.files.source,
            "digest": student.files.digest,
            "quantization": student.quantization,
            "hub_name": hub_name(student.files),
            "license": license_of(student.files),
        },
        "knowledge": dict(teller.knowledge),
        "demonstrations": {name: shown.count for name, shown in teller.shown.items()},
        "encoder": next((shown.encoder for shown in teller.shown.values()), ""),
        "products": asdict(teller.form),
        **answer,
        "instruction": INSTRUCTION,
        "data": run["data"],
        "run": run["hash"],
    }
    write_json(folder / "kdjax.json", described)
    _save_demonstrations(folder, teller)
    golden = _golden(student, head, answer["pair_layers"], teller, parallel)
    write_json(folder / "golden.json", golden)


def load_adapter_head(adapter: Path, form: ProductForm, hidden: int, layers: int) -> PairHead:
    """The pair head of an adapter on disk, which must judge products told in this form, by the states behind so many layers.

    Raises:
        InputError: there is none, or it was trained on other states.
    """
    trained = trained_with(adapter)
    found, told = trained["pair_layers"], trained["products"]
    if found != layers:
        raise InputError(
            f"{adapter}: its pair head judges the states behind {found} layers; config.student.pair_layers is {layers}"
        )
    if told != form:
        raise InputError(
            f"{adapter}: its pair head judges products told as {told}; by config.prompting.fields and title_words it is {form}"
        )
    return load_pair_head(adapter, len(form.fields), hidden)


def trained_with(adapter: Path) -> dict:
    """What an adapter's kdjax.json says: how it was trained, and how it answers.

    Raises:
        InputError: it is no such description, or one of an earlier version of kdjax.
    """
    path = adapter / "kdjax.json"
    trained = read_json(path)
    if "instruction" in trained and not {"products", "demonstrations"} <= trained.keys():
        raise InputError(
            f"{path}: the adapter is of an earlier version of kdjax, which told sessions otherwise; train it again"
        )
    try:
        products = trained["products"]
        return {
            "base": dict(trained["base"]),
            "knowledge": dict(trained["knowledge"]),
            "shown": _load_demonstrations(adapter, dict(trained["demonstrations"]), str(trained.get("encoder", ""))),
            "products": ProductForm(tuple(products["fields"]), int(products["title_words"])),
            "answer": str(trained["answer"]),
            "pair_layers": int(trained["pair_layers"]),
            "orders": int(trained["orders"]),
            "thoughts_first": bool(trained["thoughts_first"]),
            "instruction": str(trained["instruction"]),
            "max_new_tokens": int(trained["max_new_tokens"]),
            "no_bundle": NoBundle(**trained.get("no_bundle", {})),
        }
    except InputError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not the description of an adapter that kdjax trained ({error!r})") from error


def _save_demonstrations(folder: Path, teller: Teller) -> None:
    rows = [
        {"domain": name, "thought": shown.thoughts.get(session.id, ""), **asdict(session)}
        for name, shown in teller.shown.items()
        if shown.count
        for session in shown.sessions
    ]
    if rows:
        write_jsonl(folder / DEMONSTRATIONS, rows)


def _load_demonstrations(folder: Path, counts: Mapping[str, int], encoder: str) -> dict[str, Shown]:
    sessions: dict[str, list[Session]] = {name: [] for name in counts}
    thoughts: dict[str, dict[str, str]] = {name: {} for name in counts}
    for row in read_jsonl(folder / DEMONSTRATIONS) if any(counts.values()) else ():
        name, thought = row.pop("domain"), row.pop("thought")
        paths = tuple(tuple(map(tuple, product)) for product in row.pop("categories"))
        bundles = tuple(map(tuple, row.pop("bundles")))
        told = {field: tuple(row[field]) for field in ("items", "titles", "intents")}
        sessions[name].append(Session(row["id"], categories=paths, bundles=bundles, **told))
        thoughts[name][row["id"]] = thought
    return {name: Shown(int(count), tuple(sessions[name]), thoughts[name], encoder) for name, count in counts.items()}


def _golden(student: Student, head: PairHead | None, layers: int, teller: Teller, parallel: Parallel) -> dict:
    count = len(GOLDEN_TITLES)
    session = Session("golden", tuple(map(str, range(count))), GOLDEN_TITLES, ((),) * count)
    prompt = teller.prompt(next(iter(teller.knowledge)), session)
    generator = Generator(student, max_new_tokens=GOLDEN_TOKENS, rows_per_device=1, buckets=1, parallel=parallel)
    [completion] = generator(student.adapter, [prompt], [count], Constraint("none"))
    logits = np.asarray(student.logits(np.asarray([prompt.prompt_ids])))[0, -1]
    top = np.argsort(-logits, kind="stable")[:GOLDEN_LOGITS]
    golden = {
        "prompt": prompt.prompt,
        "prompt_ids": list(prompt.prompt_ids),
        "greedy_ids": list(completion.token_ids),
        "greedy_text": completion.text,
        "first_logits": {"ids": top.tolist(), "values": logits[top].tolist()},
    }
    if head:
        [states] = StateReader(student, layers, len(prompt), parallel)(student.adapter, [prompt])
        golden |= {"product_tokens": prompt.products, "pair_log_odds": judge(head, states).tolist()}
    return golden
