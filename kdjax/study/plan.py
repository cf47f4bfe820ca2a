"""What a study will do, before anything is spent: steps, teacher calls, time and disk of each cell."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
from rich.table import Table

from kdjax.data import Domain
from kdjax.errors import InputError
from kdjax.prompting import Example
from kdjax.reporting import duration
from kdjax.sources import Tokenizer, load_tokenizer, resolve
from kdjax.student import DecoderConfig, check_student
from kdjax.study import examples as asking
from kdjax.study.calls import CallCounter, Calls
from kdjax.study.cell import load_domains
from kdjax.study.grid import GridCell, Run
from kdjax.study.predecessor import check_aicl
from kdjax.study.prepared import Prepared, prepare
from kdjax.study.quantity import foreseen, measures_difficulty
from kdjax.study.settings import USES, lora_config, student_settings, train_settings, writes_thoughts
from kdjax.study.telling import Teller, digest
from kdjax.training import PairRows, Rows
from kdjax.training.batches import by_domain, common_prefix

SHARE = (
    0.3  # of the rate of a plain matrix product that training and reading reach; docs/benchmark.md has the measurement
)
FORMULA = (
    "time ≈ (4 · N · tokens trained + 2 · N · tokens read or written) ÷ (30 % of a plain matrix product's rate, measured now: "
    "{rate:.0f} Gflop/s), N: weights of the layers computed; without compilation. What cells share counts with the first, "
    "whether or not an earlier run left it; so do teacher calls, if they are not recorded. All of the runs to come. {teacher}"
)


@dataclass(frozen=True)
class Work:
    """What a run of a cell takes, its teacher apart: optimizer steps, floating point operations (of the first run, and of
    each further seed), and bytes on disk, checkpoints included."""

    steps: int = 0
    first: float = 0.0
    further: float = 0.0
    disk: int = 0

    def seconds(self, rate: float, runs: int) -> float:
        """Of so many runs, by FORMULA, at a matrix product's rate in flops per second."""
        return (self.first + (runs - 1) * self.further) / (SHARE * rate)


class WorkCounter:
    """Counts the work of one cell after the other; what untrained students do for several of them counts with the first."""

    def __init__(self):
        self._done: set[tuple] = set()

    def __call__(self, run: Run, domains: Mapping[str, Domain]) -> Work:
        """Count what a run on these data takes, from its first example to its last answer.

        Raises:
            InputError: as `prepare` does; nothing of it would be found out later.
        """
        config = run.config
        if config.job == "aicl":
            check_aicl(config, domains)
            if not measures_difficulty(config):
                return Work()
            shape = check_student(config.student.source, **student_settings(config))
            tokenizer = load_tokenizer(resolve(config.student.source))
            return Work(first=self._measuring(config, domains, tokenizer, shape))
        prepared = prepare(config, run.folder, domains)
        chosen = {use: foreseen(config, domains, use) for use in USES}
        teller = asking.teller(config, prepared.tokenizer, chosen["knowledge"], prepared.ready)
        epochs = asking.training_set(config, teller, chosen["training"], prepared.ready)
        validation, test = (asking.questions(config, teller, domains, one).prompts for one in ("validation", "test"))
        plain = teller.without_demonstrations()
        fitted, judged = epochs[0], test  # as a pair head reads them
        if config.student.answer == "text" and config.prompting.demonstrations:
            fitted = asking.training_set(config, plain, chosen["training"], prepared.ready)[0]
            judged = asking.questions(config, plain, domains, "test").prompts
        steps = train_settings(config).total_steps(len(epochs), len(epochs[0]))
        share = min(1.0, steps * config.train.batch_size / (len(epochs) * len(epochs[0])))
        cost = Cost(config, prepared.shape)
        own = share * cost.training([*chain(*epochs)])
        own += math.ceil(share * len(epochs)) * cost.answering(validation)
        answers = cost.answering(test)
        if steps:
            own += answers
        untrained = {}  # by what it depends on
        who = (*_model(config), _told(config))
        head = (*who, config.student.pair_layers, digest(fitted))
        form = config.eval.orders, config.eval.constraint, config.eval.max_new_tokens, writes_thoughts(config)
        untrained[*(head if cost.judges else who), *form, digest(test)] = answers
        tried = 0.0
        if tries := _tried(config):  # alone in the prompt
            read = asking.training_set(config, plain, chosen["training"], prepared.ready)[0]
            alone = asking.questions(config, plain, domains, "validation").prompts
            tried = tries * (cost.answering(alone) + (cost.judging(read) if cost.judges else 0.0))
            untrained[*who, config.student.pair_layers, *form, "cards tried", digest(read), digest(alone)] = tried
        untrained[head] = cost.judging(fitted)
        if not cost.judges:
            untrained[*head, "test"] = cost.judging(judged)
        if config.student.adapter:  # has a head, and is asked anew
            own, untrained = own + answers + tried, {}
        first, further = own + self._new(untrained), own + sum(untrained.values())
        if measures_difficulty(config):
            first += self._measuring(config, domains, prepared.tokenizer, prepared.shape)
        return Work(steps, first, further, _disk(prepared, steps))

    def _measuring(
        self, config: ConfigDict, domains: Mapping[str, Domain], tokenizer: Tokenizer, shape: DecoderConfig
    ) -> float:
        """The flops of finding out how hard training sessions are, if no cell did before."""
        bare = Teller(tokenizer, asking.product_form(config), dict.fromkeys(domains, ""))
        told = [bare.example(name, one) for name, domain in domains.items() for one in domain.splits["train"]]
        return self._new({(*_model(config), "difficulty", digest(told)): Cost(config, shape).reading(told)})

    def _new(self, work: Mapping[tuple, float]) -> float:
        """The flops of what no cell did before."""
        new = sum(flops for what, flops in work.items() if what not in self._done)
        self._done |= work.keys()
        return new


def _model(config: ConfigDict) -> tuple[str, ...]:
    student = config.student
    return student.source, student.adapter, student.dtype, student.quantization


def _told(config: ConfigDict) -> str:
    """What cards depend on: prompts do not show yet those that are to come, or of a sample."""
    knowledge = ("seed", "teacher", "knowledge") if config.knowledge.formats else ()
    told = {name: config[name] for name in ("quantity", *knowledge)}
    return json.dumps(told, default=lambda part: part.to_dict())


class Cost:
    """Floating point operations of a student, by FORMULA."""

    def __init__(self, config: ConfigDict, shape: DecoderConfig):
        self.judges = config.student.answer == "pairs"
        self._eval = config.eval
        self._judging = _weights(shape, min(config.student.pair_layers, shape.num_hidden_layers))
        self._all = _weights(shape, shape.num_hidden_layers)
        self._head = shape.hidden_size * shape.vocab_size  # that a written token meets besides

    def training(self, examples: Sequence[Example]) -> float:
        """Of each of the examples once."""
        if self.judges:
            return 4 * self._judging * _fed(examples, PairRows)
        return 4 * self._all * _fed(examples, Rows)

    def answering(self, prompts: Sequence[Example]) -> float:
        """Each of the prompts, in all orders; what is written is as long as it may be."""
        if self.judges:
            return self._eval.orders * self.judging(prompts)
        written = len(prompts) * self._eval.max_new_tokens
        return 2 * (self._all + self._head) * written + self.reading(prompts)

    def judging(self, examples: Sequence[Example]) -> float:
        """The states that a pair head reads."""
        return 2 * self._judging * _fed(examples, PairRows)

    def reading(self, examples: Sequence[Example]) -> float:
        """With all layers."""
        return 2 * self._all * _fed(examples, Rows)


def _tried(config: ConfigDict) -> int:
    """How often validation is answered to find out which cards help, at most: without any, and with each."""
    if config.knowledge.keep != "validated":
        return 0
    return sum(1 + config.knowledge.limit for form in config.knowledge.formats if form != "thoughts")


def _fed(examples: Sequence, kind) -> int:
    """Tokens that are computed, shared beginnings once."""
    prefixes = {domain: len(common_prefix(members)) for domain, members in by_domain(examples).items()}
    return sum(len(kind.fed(example, prefixes[example.domain])) for example in examples)


def _weights(shape: DecoderConfig, layers: int) -> int:
    attention = 2 * shape.hidden_size * shape.head_dim * (shape.num_attention_heads + shape.num_key_value_heads)
    return layers * (attention + 3 * shape.hidden_size * shape.intermediate_size)


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


def plan_table(cells: Sequence[GridCell], works: Sequence[Work | None], asked: Sequence[Calls], rate: float) -> Table:
    """The plan for the console, of all runs to come; a `Work` is of one of them, None where a cell is finished."""
    caption = FORMULA.format(rate=rate / 1e9, teacher=_pace(sum(asked, Calls())))
    table = Table(title="plan", title_justify="left", caption=caption, caption_justify="left")
    for heading in ("cell", "runs", "finished", "steps", "teacher calls", "recorded", "time", "disk"):
        table.add_column(heading, justify="left" if heading == "cell" else "right")
    runs = finished = steps = disk = 0
    seconds, told = 0.0, Calls()
    for cell, one, its in zip(cells, works, asked, strict=True):
        done = sum(run.finished for run in cell.runs)
        runs, finished = runs + len(cell.runs), finished + done
        if one is None:
            table.add_row(cell.name, str(len(cell.runs)), str(done), *("–",) * 5)
            continue
        left = len(cell.runs) - done
        takes = one.seconds(rate, left) + its.seconds
        table.add_row(cell.name, *_numbers(len(cell.runs), done, left * one.steps, its, takes, left * one.disk))
        steps, told, seconds, disk = steps + left * one.steps, told + its, seconds + takes, disk + left * one.disk
    table.add_section()
    table.add_row("all", *_numbers(runs, finished, steps, told, seconds, disk))
    return table


def _numbers(runs: int, finished: int, steps: int, asked: Calls, seconds: float, disk: int) -> list[str]:
    calls = f"at most {asked.to_come}" if asked.to_come else "0"
    time = duration(seconds) + (" + teacher" if asked.unknown else "")
    return [str(runs), str(finished), str(steps), calls, str(asked.recorded), time, f"{disk / 2**20:.0f} MiB"]


def _pace(asked: Calls) -> str:
    known = asked.to_come - asked.unknown
    parts = []
    if known:
        parts.append(
            f"Of the teacher, {asked.seconds / known:.2g} s for each of {known} calls, as it took for those recorded."
        )
    if asked.unknown:
        parts.append(
            f"How long {asked.unknown} teacher calls take is not known: no answer of that teacher is recorded."
        )
    return " ".join(parts)


def plan(cells: Sequence[GridCell]) -> tuple[list[Work | None], list[Calls]]:
    """The work of a run of each cell that is not finished, by its first unfinished seed; and the teacher calls of all its
    runs to come.

    Raises:
        InputError: as `WorkCounter` does; names the cell.
    """
    works: list[Work | None] = []
    asked: list[Calls] = []
    work, calls = WorkCounter(), CallCounter()
    for cell in cells:
        waiting = [run for run in cell.runs if not run.finished]
        try:
            domains = load_domains(waiting[0].config) if waiting else {}
            works.append(work(waiting[0], domains) if waiting else None)
            asked.append(sum((calls(run, domains) for run in waiting), Calls()))
        except InputError as error:
            raise InputError(f"study cell {cell.name!r}: {error}") from error
    return works, asked
