"""How the student answers questions: it writes, or its links are read. Both ways end in a text that names bundles."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ml_collections import ConfigDict

from kdjax.decoding import (
    Bundles,
    Completion,
    Constraint,
    Generator,
    LinkReader,
    best_answer,
    in_place,
    likely_bundles,
    mean_beliefs,
)
from kdjax.prompting import answer_text
from kdjax.student import Student
from kdjax.study.examples import Questions

Answer = Callable[[dict, Questions, Callable[[int], None]], list[Completion]]  # adapter, questions, on_batch


def answerer(student: Student, config: ConfigDict, form: Constraint) -> Answer:
    """What answers as `config.eval.answer` says; compiled programs are kept, so one serves all epochs."""
    if config.eval.answer == "links":
        return Linked(LinkReader(student, config.train.micro_batch_tokens))
    generator = Generator(
        student,
        max_new_tokens=config.eval.max_new_tokens,
        rows_per_device=config.eval.batch_size,
        buckets=config.eval.buckets,
    )
    return Written(generator, form)


@dataclass(frozen=True)
class Written:
    """The student writes its answer."""

    generator: Generator
    form: Constraint

    def __call__(self, adapter: dict, asked: Questions, on_batch: Callable[[int], None]) -> list[Completion]:
        sizes = [len(session) for session in asked.sessions]
        return self.generator(adapter, asked.prompts, sizes, self.form, on_batch=on_batch)


@dataclass(frozen=True)
class Linked:
    """The student's links are read, in each order that the products are told in, and the best answer by all of them is given.

    Nothing is generated: a completion has no tokens.
    """

    read: LinkReader

    def __call__(self, adapter: dict, asked: Questions, on_batch: Callable[[int], None]) -> list[Completion]:
        prompts = [prompt for telling in asked.tellings for prompt in telling.prompts]
        links = iter(self.read(adapter, prompts, on_batch))
        read: list[list[dict[Bundles, float]]] = [[] for _ in asked.sessions]
        for telling in asked.tellings:
            for beliefs, order in zip(read, telling.orders, strict=True):
                found = likely_bundles(next(links))
                beliefs.append({in_place(bundles, order): share for bundles, share in found.items()})
        return [Completion(answer_text(_best(beliefs)), (), True) for beliefs in read]


def _best(beliefs: Sequence[dict[Bundles, float]]) -> Bundles:
    return best_answer(mean_beliefs(beliefs))
