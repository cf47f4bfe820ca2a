"""The training loop: batches by (seed, step), validation after each epoch, the best epoch kept, checkpoints, exact resume."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path

import jax
import numpy as np

from kdjax.errors import InputError
from kdjax.prompting import Example
from kdjax.student import Student
from kdjax.training.batches import Group, MicroBatch, batch_members, lay_out, plan_groups, steps_per_epoch
from kdjax.training.checkpoints import Checkpoints
from kdjax.training.clock import compile_seconds
from kdjax.training.loss import TEXT, Objective
from kdjax.training.parallel import Parallel
from kdjax.training.preemption import Preempted, Preemption
from kdjax.training.rows import PairRows
from kdjax.training.step import Trainer, adamw, learning_rate_schedule

Validate = Callable[[dict], dict]  # adapter -> metrics as `kdjax.evaluation.score` gives them


@dataclass(frozen=True)
class TrainSettings:
    """The fields of `config.train`, plus the seed and LoRA's dropout; see kdjax/config.py for what each means."""

    seed: int
    max_steps: int
    batch_size: int
    micro_batch_tokens: int
    learning_rate: float
    warmup_ratio: float
    weight_decay: float
    max_grad_norm: float
    checkpoint_every: int
    remat: str = "linears"
    dropout: float = 0.0

    def total_steps(self, epochs: int, examples: int) -> int:
        """Optimizer steps of the whole training: all epochs, or `max_steps` where that is smaller and not negative."""
        steps = epochs * steps_per_epoch(examples, self.batch_size)
        return steps if self.max_steps < 0 else min(steps, self.max_steps)


@dataclass
class Counts:
    """What a checkpoint remembers beside the arrays. Times are sums over all parts of a continued run.

    `real_tokens` are those of the examples, each counted in full, as far as it is read; `padded_tokens` are those computed:
    a shared prefix once per micro-batch and device, and padding. `seconds` leaves compilation, validation and checkpoints out.
    `validated` epochs are over, validation included.
    """

    steps: int = 0
    examples: int = 0
    real_tokens: int = 0
    padded_tokens: int = 0
    target_tokens: int = 0
    seconds: float = 0.0
    compile_seconds: float = 0.0
    validated: int = 0
    best_epoch: int = 0
    best_score: float = -1.0
    history: list[dict] = field(default_factory=list)

    def counts(self) -> dict[str, int | float]:
        """The part that metrics.json shows."""
        names = (
            "steps",
            "examples",
            "real_tokens",
            "padded_tokens",
            "target_tokens",
            "seconds",
            "compile_seconds",
            "best_epoch",
        )
        return {name: getattr(self, name) for name in names}


class Training:
    """Trains a student's adapter. `run()` continues from the latest checkpoint in `folder`, if there is one.

    Of several processes each has one of these over the same examples, and all call `run`; only the first has a folder.

    Args:
        objective: what is trained for.
        initial: what training starts from, the student's adapter where it is None; with a pair head {"adapter", "head"}.
        epochs: `epochs[e][i]` is example i as it is told in epoch e: the same session, its products perhaps in another
            order. All epochs have as many examples.
        validate: scores an adapter after each epoch; the epoch with the highest strict F1 is kept. Without it the last is.
        on_start: hears the first step's micro-batches and the step to start from.
        on_event: hears each row of the history: {"step", "loss", "gradient_norm", "learning_rate", "epoch", "seconds"} or
            {"step", "epoch", "validation"}.
    """

    def __init__(
        self,
        student: Student,
        epochs: Sequence[Sequence[Example]],
        settings: TrainSettings,
        folder: str | Path | None,
        *,
        objective: Objective = TEXT,
        initial: dict | None = None,
        parallel: Parallel | None = None,
        validate: Validate | None = None,
        on_start: Callable[[list[MicroBatch], int], None] = lambda batches, step: None,
        on_event: Callable[[dict], None] = lambda row: None,
    ):
        if not epochs or not epochs[0]:
            raise InputError("there are no training examples; check data.domains, quantity and train.epochs")
        if len({len(examples) for examples in epochs}) > 1:
            raise ValueError("every epoch tells the same examples, but their numbers differ")
        self._epochs, self._settings, self._objective = epochs, settings, objective
        self._per_epoch = steps_per_epoch(len(epochs[0]), settings.batch_size)
        self.total = settings.total_steps(len(epochs), len(epochs[0]))
        self._validate, self._on_start, self._on_event = validate, on_start, on_event
        self._pad_id = student.tokenizer.eos_id
        schedule = learning_rate_schedule(settings.learning_rate, self.total, settings.warmup_ratio)
        self._rates = np.asarray(schedule(np.arange(self.total)))
        optimizer = adamw(schedule, settings.weight_decay, settings.max_grad_norm)
        self._trainer = Trainer(
            student.graph, student.base, optimizer, settings.dropout, settings.remat, objective, parallel
        )
        self._groups: dict[str, Group] = plan_groups(
            [*chain(*epochs)], settings.micro_batch_tokens, self._trainer.parallel.long_rows, objective.rows
        )
        self._checkpoints = Checkpoints(folder)
        self._key = self._trainer.parallel.replicate(jax.random.key(settings.seed))
        self.state = self._trainer.init(student.adapter if initial is None else initial)
        self.best = _copy(self.state.adapter)
        self.progress = Counts()

    def run(self) -> dict:
        """Train to the end. Returns the adapter of the best epoch; counters and history are in `progress`.

        Raises:
            FloatingPointError: the loss is not finite; names the step and its sessions. The last checkpoint stays.
            Preempted: the process got SIGTERM. The step under way was finished and saved.
        """
        self._resume()
        if self.progress.steps and self._ends_epoch(self.progress.steps):
            self._end_epoch(self.progress.steps)
        if self.progress.steps < self.total:
            self._on_start(self._batches(self.progress.steps), self.progress.steps)
        pending, preemption = None, Preemption()
        for step in range(self.progress.steps, self.total):
            done = step + 1
            ends_epoch = self._ends_epoch(done)
            saves = ends_epoch or done % self._settings.checkpoint_every == 0
            started, compiled = time.perf_counter(), compile_seconds()
            with preemption:
                batches = self._batches(step)
                # Nothing goes to a device or comes back but what is put there and fetched by name.
                with jax.transfer_guard("disallow"):
                    self.state, metrics = self._trainer.step(self.state, batches, self._key)
                    self._record(pending)  # the step before, while this one is under way
                    pending = (step, batches, metrics)
                    preempted = preemption.before_the_end_of(done)
                    if saves or preempted:
                        self._record(pending)
                        pending = None
                compiled = compile_seconds() - compiled
                self.progress.seconds += time.perf_counter() - started - compiled
                self.progress.compile_seconds += compiled
                if saves or preempted:
                    self._save()
            if preempted or (saves and preemption.told):  # perhaps while it was recorded or saved
                raise Preempted(done)
            if ends_epoch:
                self._end_epoch(done)
        return self.best

    def _ends_epoch(self, step: int) -> bool:
        return step % self._per_epoch == 0 or step == self.total

    def _save(self) -> None:
        self._checkpoints.save(self.progress.steps, {"train": self.state, "best": self.best}, asdict(self.progress))

    def _members(self, step: int) -> dict[int, Example]:
        """The examples of a step by their number, as its epoch tells them."""
        examples = self._epochs[step // self._per_epoch]
        chosen = batch_members(len(examples), self._settings.batch_size, self._settings.seed, step)
        return {i: examples[i] for i in chosen}

    def _batches(self, step: int) -> list[MicroBatch]:
        members = self._members(step)
        return lay_out(
            [*members.values()], self._groups, self._trainer.parallel.all_shares, self._pad_id, ids=[*members]
        )

    def _record(self, pending) -> None:
        """Fetch a step's metrics from the device, check them and count them."""
        if pending is None:
            return
        step, batches, metrics = pending
        metrics = {name: float(value) for name, value in jax.device_get(metrics).items()}
        members = self._members(step).values()
        if not all(map(math.isfinite, metrics.values())):
            sessions = ", ".join(f"{example.domain}/{example.session_id}" for example in members)
            raise FloatingPointError(
                f"step {step + 1}: loss {metrics['loss']}, gradient norm {metrics['gradient_norm']}, largest weight "
                f"{metrics['largest_weight']}; sessions: {sessions}"
            )
        progress = self.progress
        progress.steps = step + 1
        progress.examples += len(members)
        progress.real_tokens += sum(map(self._objective.rows.size, members))
        progress.padded_tokens += sum(batch.computed_tokens for batch in batches)
        progress.target_tokens += round(metrics["tokens"])
        self._tell(
            {
                "step": step + 1,
                "loss": metrics["loss"],
                "gradient_norm": metrics["gradient_norm"],
                "learning_rate": float(self._rates[step]),
                "epoch": (step + 1) / self._per_epoch,
                "seconds": progress.seconds,
            }
        )

    def _end_epoch(self, step: int) -> None:
        """Validate, if that was not done yet, and keep this epoch's adapter if it is the best so far (the earlier of equals)."""
        epoch = math.ceil(step / self._per_epoch)
        if self.progress.validated == epoch:
            return
        score = float(epoch)
        if self._validate:
            metrics = self._validate(self.state.adapter)
            score = metrics["strict"]["f1"]
            self._tell({"step": step, "epoch": epoch, "validation": metrics})
        if score > self.progress.best_score:
            self.best = _copy(self.state.adapter)
            self.progress.best_epoch, self.progress.best_score = epoch, score
        self.progress.validated = epoch
        self._save()

    def _tell(self, row: dict) -> None:
        self.progress.history.append(row)
        self._on_event(row)

    def _resume(self) -> None:
        restored = self._checkpoints.restore({"train": self.state, "best": self.best})
        if restored:
            state, progress = restored
            self.state, self.best, self.progress = state["train"], state["best"], Counts(**progress)


def _copy(adapter: dict) -> dict:
    """The training step takes over the buffers of its state, so what is kept must be a copy."""
    return jax.tree.map(lambda leaf: leaf.copy(), adapter)


def preview(student: Student, batch: MicroBatch) -> str:
    """The first example of a micro-batch as the device gets it, decoded: what is trained on stands between ⟦ and ⟧."""
    rows = jax.tree.map(lambda array: array.reshape(-1, *array.shape[2:])[0], batch.rows)
    mine = rows.ids == rows.ids[0]
    if isinstance(rows, PairRows):
        return _preview_pairs(student, batch.prefix, rows.tokens[mine], rows.parts[mine] // rows.fields, rows)
    targets = (rows.weights > 0) & mine[rows.positions]
    read = np.concatenate([batch.prefix, rows.tokens[: rows.positions[targets].min() + 1]])
    return f"{_decode(student, read)}⟦{_decode(student, rows.labels[targets])}⟧"


def _preview_pairs(student: Student, prefix: np.ndarray, fed: np.ndarray, products: np.ndarray, rows: PairRows) -> str:
    """Behind each product those that share a bundle with it."""
    together = rows.labels * rows.weights > 0
    pairs = [*zip(rows.first[together].tolist(), rows.second[together].tolist(), strict=True)]
    text, read = _decode(student, prefix), 0
    for product in range(products.max() + 1):
        mates = [b for a, b in pairs if a == product] + [a for a, b in pairs if b == product]
        end = int(np.flatnonzero(products == product)[-1]) + 1
        text += f"{_decode(student, fed[read:end])}⟦{', '.join(str(mate + 1) for mate in sorted(mates))}⟧"
        read = end
    return text


def _decode(student: Student, ids: np.ndarray) -> str:
    return student.tokenizer.decode(ids.tolist(), skip_special_tokens=False)
