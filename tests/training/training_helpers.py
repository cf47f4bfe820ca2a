"""What the tests of this room and their subprocesses share: a tiny student, random examples, one plain reference for the loss."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from kdjax.prompting import Example
from kdjax.sources.tiny import write_tiny_model
from kdjax.student import LoraConfig, Student, load_student
from kdjax.training import Parallel, Trainer, TrainSettings
from kdjax.training.batches import Group, MicroBatch, align

PAD = 2
FEW = ("q_proj", "v_proj")  # where a test needs some adapter: dropout in every linear layer takes long to compile
SETTINGS = TrainSettings(
    seed=3,
    max_steps=-1,
    batch_size=5,
    micro_batch_tokens=64,
    learning_rate=1e-2,
    warmup_ratio=0.1,
    weight_decay=0.01,
    max_grad_norm=1.0,
    checkpoint_every=2,
    dropout=0.2,
)


def tiny_student(folder: Path, target_modules: str | tuple[str, ...] = "all-linear") -> Student:
    """Two random layers, written into `folder` on first use. B is random too, else the gradient of A would be zero."""
    if not (folder / "config.json").is_file():
        write_tiny_model(folder)
    student = load_student(str(folder), lora=LoraConfig(r=4, lora_alpha=8, target_modules=target_modules))
    rng = np.random.default_rng(5)
    student.adapter = jax.tree.map(lambda a: jnp.asarray(rng.normal(0, 0.1, a.shape), a.dtype), student.adapter)
    return student


def random_examples(domain: str, count: int, prefix: int) -> list[Example]:
    """Random prompts behind a common beginning of `prefix` tokens, each with 3 to 20 tokens of its own and 1 to 9 targets."""
    rng = np.random.default_rng([ord(domain), prefix])

    def draw(length: int) -> tuple[int, ...]:
        return tuple(rng.integers(3, 259, length).tolist())

    shared = draw(prefix)
    return [
        Example(domain, f"{domain}{i}", "", shared + draw(rng.integers(3, 21)), "", draw(rng.integers(1, 10)))
        for i in range(count)
    ]


def one_group(examples: list[Example], prefix: int) -> dict[str, Group]:
    """A plan with prefixes of `prefix` tokens (0: none), and four rows at a time of the length of the longest example."""
    length = align(max(map(len, examples)) - prefix)
    return {example.domain: fixed_group(example.prompt_ids[:prefix], length, 16, 4) for example in examples}


def fixed_group(prefix: tuple[int, ...], length: int, targets: int, rows: int) -> Group:
    """Rows of `length` tokens with room for so many targets, at most `rows` at a time."""
    return Group(prefix, longest=length, densities=(targets / length,), tokens=rows * length, length=length)


class Descent:
    """Steps of plain gradient descent from the student's adapter: what a step changes is the gradient it took."""

    def __init__(self, student: Student, parallel: Parallel | None = None):
        self._adapter = student.adapter
        self._trainer = Trainer(student.graph, student.base, optax.sgd(1.0), 0.0, parallel=parallel)
        self.shares = self._trainer.parallel.all_shares

    def __call__(self, batches: list[MicroBatch]) -> tuple[float, dict]:
        """Mean loss per target token, and its gradient, of one step over `batches`."""
        after, metrics = self._trainer.step(self._trainer.init(self._adapter), batches, jax.random.key(0))
        gradient = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), self._adapter, after.adapter)
        return float(metrics["loss"]), gradient


class Plain:
    """The loss by its definition: whole rows, no prefix, the full logits of every position, log_softmax, then the targets."""

    def __init__(self, student: Student, rows: int, length: int):
        self._student, self._shape = student, (rows, length)

        def losses(adapter, base, tokens, targets):
            decoder = student.merge(adapter, base)
            logits = decoder(tokens[:, :-1]) @ decoder.head.T
            picked = jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[:, 1:, None], axis=-1)[..., 0]
            return jnp.where(targets[:, 1:], -picked, 0.0)

        self._losses = jax.jit(losses)
        self._mean = jax.jit(
            jax.value_and_grad(
                lambda adapter, base, tokens, targets: (
                    losses(adapter, base, tokens, targets).sum() / targets.sum(dtype=jnp.float32)
                )
            )
        )

    def losses(self, examples: list[Example]) -> list[np.ndarray]:
        """Each example's target losses."""
        tokens, targets = self._rows(examples)
        losses = np.asarray(self._losses(self._student.adapter, self._student.base, tokens, targets))
        return [row[mask] for row, mask in zip(losses, targets[:, 1:], strict=True)][: len(examples)]

    def __call__(self, examples: list[Example]) -> tuple[float, dict]:
        """Mean loss per target token, and its gradient."""
        loss, gradient = self._mean(self._student.adapter, self._student.base, *self._rows(examples))
        return float(loss), gradient

    def _rows(self, examples: list[Example]) -> tuple[np.ndarray, np.ndarray]:
        tokens, targets = np.full(self._shape, PAD), np.zeros(self._shape, bool)
        for row, example in enumerate(examples):
            tokens[row, : len(example)] = example.prompt_ids + example.completion_ids
            targets[row, len(example.prompt_ids) : len(example)] = True
        return tokens, targets


def assert_same(found: tuple[float, dict], expected: tuple[float, dict]) -> None:
    """Loss and gradient agree within float32 rounding, which is relative to the largest number of an array."""
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)

    def same(a, b):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6 * max(1.0, np.abs(b).max(initial=0.0)))

    jax.tree.map(same, found[1], expected[1])
