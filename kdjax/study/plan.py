"""What a study will do, before anything is spent: steps, tokens, teacher calls, time and disk of each cell."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

import jax
import jax.numpy as jnp
from rich.table import Table

from kdjax.errors import InputError
from kdjax.knowledge import MOST_TURNS, TURNS
from kdjax.reporting import duration
from kdjax.student import DecoderConfig
from kdjax.study import examples as asking
from kdjax.study.cell import load_domains
from kdjax.study.distil import drawn, recorded
from kdjax.study.grid import GridCell, Run
from kdjax.study.predecessor import check_aicl
from kdjax.study.prepared import Prepared, prepare
from kdjax.study.quantity import sampled
from kdjax.study.settings import lora_config, train_settings
from kdjax.training import PairRows, Rows, plan_groups

SHARE = 0.3  # of the rate of a plain matrix product that training and reading reach; README.md has the measurement
FORMULA = (
    "time ≈ (4 · N · tokens trained + 2 · N · tokens read or written) ÷ (30 % of a plain matrix product's rate, measured now: "
    "{rate:.0f} Gflop/s), N: weights of the layers computed; without teacher and compilation; all of the runs to come"
)


@dataclass(frozen=True)
class Work:
    """What one run of a cell takes. `written` and `calls` are at most so many; `disk` in bytes, checkpoints included.

    `weights` are those of the layers computed, `head` those that a written token meets besides.
    """

    steps: int
    trained: int
    read: int
    written: int
    weights: int
    head: int
    calls: int
    calls_recorded: bool
    disk: int

    def seconds(self, rate: float) -> float:
        """By FORMULA, at a matrix product's rate in flops per second."""
        flops = self.weights * (4 * self.trained + 2 * (self.read + self.written)) + 2 * self.head * self.written
        return flops / (SHARE * rate)


def work(run: Run) -> Work:
    """Count what a run takes, from its first example to its last answer.

    Raises:
        InputError: as `prepare` does; nothing of it would be found out later.
    """
    config, domains = run.config, load_domains(run.config)
    if config.job == "aicl":
        asked = sum(len(asking.spread(domain.splits["test"], config.eval.max_sessions)) for domain in domains.values())
        check_aicl(config, domains)
        return Work(0, 0, 0, 0, 0, 0, MOST_TURNS * asked, False, 0)
    prepared = prepare(config, run.folder, domains)
    stand_in = {name: dict.fromkeys((s.id for s in domain.splits["train"]), 0.0) for name, domain in domains.items()}
    chosen = {use: sampled(config, domains, use, stand_in) for use in ("knowledge", "training")}
    teller = asking.teller(config, prepared.tokenizer, chosen["knowledge"], prepared.ready)
    epochs = asking.training_set(config, teller, chosen["training"], prepared.ready)
    judges, examples = config.student.answer == "pairs", [*chain(*epochs)]
    kind = PairRows if judges else Rows
    steps = train_settings(config).total_steps(len(epochs), len(epochs[0]))
    share = min(1.0, steps * config.train.batch_size / len(examples))  # of all epochs
    rounds = {"validation": math.ceil(share * len(epochs)), "test": 2 if steps else 1}
    read, answers = _fed(epochs[0], PairRows), 0  # for the pair head, once
    for split, times in rounds.items():
        prompts = asking.questions(config, teller, domains, split).prompts
        read += times * config.eval.orders * _fed(prompts, kind)
        answers += times * len(prompts)
    if config.quantity.ratio < 1 and config.quantity.strategy == "difficulty":
        read += _fed(asking.training_set(config, teller, domains, prepared.ready)[0], Rows)
    return Work(
        steps,
        round(share * _fed(examples, kind)),
        read,
        0 if judges else answers * config.eval.max_new_tokens,
        _weights(prepared.shape, config.student.pair_layers if judges else prepared.shape.num_hidden_layers),
        prepared.shape.hidden_size * prepared.shape.vocab_size,
        _calls(prepared, chosen["knowledge"]),
        recorded(config, chosen["knowledge"], domains, prepared.ready, prepared.count_tokens),
        _disk(prepared, steps),
    )


def _fed(examples: Sequence, kind) -> int:
    """Tokens that are computed, shared beginnings once."""
    groups = plan_groups(examples, 1, kind=kind)
    return sum(len(kind.fed(example, len(groups[example.domain].prefix))) for example in examples)


def _weights(shape: DecoderConfig, layers: int) -> int:
    attention = 2 * shape.hidden_size * shape.head_dim * (shape.num_attention_heads + shape.num_key_value_heads)
    return layers * (attention + 3 * shape.hidden_size * shape.intermediate_size)


def _calls(prepared: Prepared, domains) -> int:
    config, calls = prepared.config, 0
    for name, domain in domains.items():
        to_come = set(config.knowledge.formats) - set(prepared.ready[name])
        asked = partial(drawn, config, domain, prepared.domains[name])
        if "rules" in to_come:
            calls += TURNS * len(asked(config.knowledge.reflections))
        if "thoughts" in to_come:
            calls += len(asked(config.knowledge.thoughts))
    return calls


def _disk(prepared: Prepared, steps: int) -> int:
    """The adapter, and in each of two checkpoints adapter, best adapter and AdamW's two moments; float32."""
    shape = prepared.shape
    plans = lora_config(prepared.config).plans(shape.num_hidden_layers)
    heads = {
        "q_proj": shape.num_attention_heads,
        "k_proj": shape.num_key_value_heads,
        "v_proj": shape.num_key_value_heads,
    }
    ends = {name: (shape.hidden_size, count * shape.head_dim) for name, count in heads.items()}
    ends["o_proj"] = ends["q_proj"][::-1]
    ends |= dict.fromkeys(("gate_proj", "up_proj"), (shape.hidden_size, shape.intermediate_size))
    ends["down_proj"] = ends["up_proj"][::-1]
    weights = sum(sum(plan.ranks) * sum(ends[name]) for name, plan in plans.items())
    return 4 * weights * (1 + (8 if steps else 0))


def matmul_rate() -> float:
    """Flops per second of a plain float32 matrix product, the best of five."""
    size = 1024
    matrix, multiply = jnp.ones((size, size)), jax.jit(jnp.matmul)
    multiply(matrix, matrix).block_until_ready()
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        multiply(matrix, matrix).block_until_ready()
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / min(seconds)


def plan_table(cells: Sequence[GridCell], works: Sequence[Work | None], rate: float) -> Table:
    """The plan for the console, of all runs to come; a `Work` is of one of them, None where a cell is finished."""
    table = Table(title="plan", title_justify="left", caption=FORMULA.format(rate=rate / 1e9), caption_justify="left")
    for heading in ("cell", "runs", "finished", "steps", "teacher calls", "time", "disk"):
        table.add_column(heading, justify="left" if heading == "cell" else "right")
    total_seconds = total_disk = 0.0
    total_steps = total_calls = 0
    for cell, one in zip(cells, works, strict=True):
        finished = sum(run.finished for run in cell.runs)
        row = [cell.name, str(len(cell.runs)), str(finished)]
        if one is None:
            table.add_row(*row, *("–",) * 4)
            continue
        left = len(cell.runs) - finished
        total_seconds += left * one.seconds(rate)
        total_disk += left * one.disk
        total_steps += left * one.steps
        total_calls += left * one.calls
        calls = f"at most {left * one.calls}" if one.calls else "0"
        if one.calls and one.calls_recorded:
            calls += f", {one.calls} recorded"
        time_left, disk = duration(left * one.seconds(rate)), f"{left * one.disk / 2**20:.0f} MiB"
        table.add_row(*row, str(left * one.steps), calls, time_left, disk)
    table.add_section()
    runs = sum(len(cell.runs) for cell in cells)
    done = sum(run.finished for cell in cells for run in cell.runs)
    calls = f"at most {total_calls}" if total_calls else "0"
    total_time, disk = duration(total_seconds), f"{total_disk / 2**20:.0f} MiB"
    table.add_row("all", str(runs), str(done), str(total_steps), calls, total_time, disk)
    return table


def plan(cells: Sequence[GridCell]) -> list[Work | None]:
    """The work of a run of each cell that is not finished, by its first unfinished seed."""
    works = []
    for cell in cells:
        waiting = next((run for run in cell.runs if not run.finished), None)
        try:
            works.append(work(waiting) if waiting else None)
        except InputError as error:
            raise InputError(f"study cell {cell.name!r}: {error}") from error
    return works
