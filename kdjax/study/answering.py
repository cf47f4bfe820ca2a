"""How the student answers questions: it writes, or a head on its hidden states judges pairs of products. Both end in a text that names bundles."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from kdjax.decoding import Completion, Constraint, Generator, StateReader, best_answer, likely_bundles
from kdjax.errors import InputError
from kdjax.prompting import ProductForm, answer_text
from kdjax.student import PairHead, Student, load_pair_head, pair_logits
from kdjax.study.examples import Questions

Answer = Callable[[dict, Questions, Callable[[int], None]], list[Completion]]  # what was trained, questions, on_batch


def answerer(student: Student, config: ConfigDict, form: Constraint) -> Answer:
    """What answers as `config.student.answer` says; compiled programs are kept, so one serves all epochs."""
    if config.student.answer == "pairs":
        return Judged(StateReader(student, config.student.pair_layers, config.train.micro_batch_tokens))
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
class Judged:
    """Pairs of products are judged in each order that they are told in, and the best answer by the mean of the judgements is given.

    Nothing is generated: a completion has no tokens.
    """

    read: StateReader

    def __call__(self, trained: dict, asked: Questions, on_batch: Callable[[int], None]) -> list[Completion]:
        judged = self.log_odds(trained, asked, on_batch)
        return [Completion(answer_text(best_answer(likely_bundles(one))), (), True) for one in judged]

    def log_odds(
        self, trained: dict, asked: Questions, on_batch: Callable[[int], None]
    ) -> list[Float[np.ndarray, "products products"]]:
        """What is believed of each two products of each session."""
        prompts = [prompt for telling in asked.tellings for prompt in telling.prompts]
        states = iter(self.read(trained["adapter"], prompts, on_batch))
        judged = [np.zeros((len(session), len(session))) for session in asked.sessions]
        for telling in asked.tellings:
            for log_odds, order in zip(judged, telling.orders, strict=True):
                log_odds[np.ix_(order, order)] += judge(trained["head"], next(states)) / len(asked.tellings)
        return judged


def load_adapter_head(adapter: Path, hidden: int, layers: int) -> PairHead:
    """The pair head of an adapter on disk, which must judge the states behind so many layers.

    Raises:
        InputError: there is none, or it was trained on other states.
    """
    head = load_pair_head(adapter, hidden)
    found = trained_with(adapter)["pair_layers"]
    if found != layers:
        raise InputError(
            f"{adapter}: its pair head judges the states behind {found} layers; config.student.pair_layers is {layers}"
        )
    return head


def trained_with(adapter: Path) -> dict:
    """What an adapter's kdjax.json says: how it was trained, and how it answers.

    Raises:
        InputError: it is no such description, or one of an earlier version of kdjax.
    """
    path = adapter / "kdjax.json"
    try:
        trained = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(trained, dict) and "instruction" in trained and "products" not in trained:
            raise InputError(
                f"{path}: the adapter is of an earlier version of kdjax, which told products otherwise; train it again"
            )
        products = trained["products"]
        return {
            "base": dict(trained["base"]),
            "knowledge": dict(trained["knowledge"]),
            "products": ProductForm(tuple(products["fields"]), int(products["title_words"])),
            "answer": str(trained["answer"]),
            "pair_layers": int(trained["pair_layers"]),
            "orders": int(trained["orders"]),
            "thoughts_first": bool(trained["thoughts_first"]),
            "instruction": str(trained["instruction"]),
            "max_new_tokens": int(trained["max_new_tokens"]),
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not the description of an adapter that kdjax trained ({error!r})") from error


def judge(head: PairHead, states: Float[np.ndarray, "products hidden"]) -> Float[np.ndarray, "products products"]:
    """The log-odds of all pairs of a session's products, symmetric; 0 on the diagonal."""
    log_odds = np.zeros((len(states), len(states)))
    first, second = np.triu_indices(len(states), k=1)
    log_odds[first, second] = log_odds[second, first] = pair_logits(head, states, first, second)
    return log_odds
