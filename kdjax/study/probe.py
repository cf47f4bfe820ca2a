"""Which layer of the untrained student knows most: a pair head on the states behind each, judged on validation."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict
from rich.table import Table

from kdjax.decoding import StateReader, best_answer, likely_bundles
from kdjax.errors import InputError
from kdjax.evaluation import pair_metrics, score
from kdjax.prompting import Example
from kdjax.reporting import Progress, RunLog, write_json
from kdjax.student import Student, fit_pair_head, load_student
from kdjax.study import examples as asking
from kdjax.study.answering import Judged
from kdjax.study.cell import load_domains
from kdjax.study.distil import Cards
from kdjax.study.settings import check, devices
from kdjax.study.telling import Questions
from kdjax.study.workdir import check_workdir, claim, record_devices
from kdjax.training import pair_labels


def probe(config: ConfigDict, workdir: str) -> None:
    """Write <workdir>/probe.json: a row for each of `config.probe.layers`, which is printed, too. Test sessions play no part.

    A row has "layers", "seconds" (the training sessions read and the head fitted) and for each domain "auc" and "nll" of the
    pairs and the strict metrics of the answers.

    Raises:
        InputError: the student has fewer layers than are asked for, or something in config, data or workdir cannot be used.
    """
    check(config)
    folder, layers = Path(workdir), config.probe.layers
    domains = load_domains(config)
    check_workdir(folder, config, domains)
    asking.check_splits(domains)
    parallel, wanted = devices(config), config.student
    student = load_student(
        wanted.source, dtype=wanted.dtype, quantization=wanted.quantization, seed=config.seed, place=parallel.place
    )
    there = student.config.num_hidden_layers
    if not layers or not all(1 <= layer <= there for layer in layers):
        raise InputError(f"config.probe.layers={layers!r}: name some of the student's layers, 1 to {there}")
    with claim(folder, config, domains) as check_held, RunLog(folder, check=check_held) as log:
        record_devices(folder)
        cards: dict[str, Cards] = {name: {} for name in domains}
        teller = asking.teller(config, student.tokenizer, domains, cards)
        examples = asking.training_set(config, teller, domains, cards)[0]
        asked = asking.questions(config, teller, domains, "validation")
        rows = []
        with Progress(len(layers), "layers", log, every=0) as progress:
            for layer in layers:
                read = StateReader(student, layer, config.train.micro_batch_tokens, parallel)
                rows.append(_row(student, read, examples, asked))
                log.event("layer", **rows[-1])
                progress.update()
        write_json(folder / "probe.json", rows)
        log.say(_table(rows))


def _row(student: Student, read: StateReader, examples, asked: Questions) -> dict:
    started = time.perf_counter()
    head = fit_pair_head(read(student.adapter, examples), [*map(pair_labels, examples)])
    seconds, domains = time.perf_counter() - started, {}
    judged = Judged(read).log_odds({"adapter": student.adapter, "head": head}, asked, lambda done: None)
    for name in dict.fromkeys(asked.domains):
        mine = [i for i, domain in enumerate(asked.domains) if domain == name]
        domains[name] = judgement([judged[i] for i in mine], [asked.prompts[i] for i in mine])
    return {"layers": read.layers, "seconds": seconds, "domains": domains}


def judgement(log_odds: Sequence[Float[np.ndarray, "products products"]], prompts: Sequence[Example]) -> dict:
    """How good judged pairs are: "auc" (None where all are of one kind) and "nll" (nats) over all pairs of all
    sessions, and the strict metrics of the answers."""
    pairs = [one[np.triu_indices(len(one), k=1)] for one in log_odds]
    labels, found = np.concatenate([*map(pair_labels, prompts)]), np.concatenate(pairs)
    answers = [best_answer(likely_bundles(one)) for one in log_odds]
    return pair_metrics(labels, found) | score(answers, [prompt.bundles for prompt in prompts])["strict"]


def _table(rows: Sequence[dict]) -> Table:
    table = Table(title="pair heads on the untrained student, validation", title_justify="left")
    domains = rows[0]["domains"]
    for heading in (
        "layers",
        "seconds",
        *(f"{name} {what}" for name in domains for what in ("AUC", "NLL", "strict F1")),
    ):
        table.add_column(heading, justify="right")
    for row in rows:
        numbers = (row["domains"][name][what] for name in domains for what in ("auc", "nll", "f1"))
        table.add_row(
            str(row["layers"]),
            f"{row['seconds']:.0f}",
            *("–" if number is None else f"{number:.3f}" for number in numbers),
        )
    return table
