"""How the student answers questions: it writes, or a head on its hidden states judges pairs of products. Both end in a
text that names bundles."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from kdjax.decoding import Completion, Constraint, Generator, StateReader, best_answer, likely_bundles
from kdjax.prompting import answer_text
from kdjax.student import PairHead, Student, pair_logits
from kdjax.study.telling import Questions
from kdjax.training import TEXT, Objective, Parallel, pairs

DECIMALS = 5  # of log-odds in files


def answerer(student: Student, parallel: Parallel, config: ConfigDict, form: Constraint) -> "Written | Judged":
    """What answers as `config.student.answer` says; compiled programs are kept, so one serves all epochs."""
    if config.student.answer == "pairs":
        return Judged(StateReader(student, config.student.pair_layers, config.train.micro_batch_tokens, parallel))
    generator = Generator(
        student,
        max_new_tokens=config.eval.max_new_tokens,
        rows_per_device=config.eval.batch_size,
        buckets=config.eval.buckets,
        parallel=parallel,
    )
    return Written(generator, form)


@dataclass(frozen=True)
class Written:
    """The student writes its answer; what is trained is its adapter."""

    generator: Generator
    form: Constraint
    objective = TEXT

    @staticmethod
    def parts(trained: dict) -> tuple[dict, PairHead | None]:
        """The adapter and the pair head of what was trained."""
        return trained, None

    def __call__(self, adapter: dict, asked: Questions, on_batch: Callable[[int], None]) -> list[Completion]:
        sizes = [len(session) for session in asked.sessions]
        return self.generator(adapter, asked.prompts, sizes, self.form, on_batch=on_batch)


@dataclass(frozen=True)
class Judged:
    """Pairs of products are judged in each order that they are told in, and the best answer by the mean of the judgements is given.

    What is trained is {"adapter", "head"}. Nothing is generated: a completion has no tokens.
    """

    read: StateReader

    @property
    def objective(self) -> Objective:
        return pairs(self.read.layers)

    @staticmethod
    def parts(trained: dict) -> tuple[dict, PairHead | None]:
        """The adapter and the pair head of what was trained."""
        return trained["adapter"], trained["head"]

    def __call__(self, trained: dict, asked: Questions, on_batch: Callable[[int], None]) -> list[Completion]:
        return [best_completion(one) for one in self.log_odds(trained, asked, on_batch)]

    def log_odds(
        self, trained: dict, asked: Questions, on_batch: Callable[[int], None]
    ) -> list[Float[np.ndarray, "products products"]]:
        """What is believed of each two products of each session."""
        prompts = [prompt for telling in asked.tellings for prompt in telling.prompts]
        states = iter(self.read(trained["adapter"], prompts, on_batch))
        head = jax.device_get(trained["head"])
        judged = [np.zeros((len(session), len(session))) for session in asked.sessions]
        for telling in asked.tellings:
            for log_odds, order in zip(judged, telling.orders, strict=True):
                log_odds[np.ix_(order, order)] += judge(head, next(states)) / len(asked.tellings)
        return judged


def best_completion(log_odds: Float[np.ndarray, "products products"]) -> Completion:
    """The best answer by the log-odds of a session's pairs, which are rounded first, so that files repeat it exactly."""
    above = np.triu_indices(len(log_odds), k=1)
    log_odds = np.round(log_odds, DECIMALS)
    text = answer_text(best_answer(likely_bundles(log_odds)))
    return Completion(text, (), True, pair_log_odds=tuple(log_odds[above].tolist()))


def judge(
    head: PairHead, states: Float[np.ndarray, "products fields hidden"]
) -> Float[np.ndarray, "products products"]:
    """The log-odds of all pairs of a session's products, symmetric; 0 on the diagonal. The head's arrays are NumPy's, as the states are."""
    log_odds = np.zeros((len(states), len(states)))
    first, second = np.triu_indices(len(states), k=1)
    log_odds[first, second] = log_odds[second, first] = pair_logits(head, states, first, second)
    return log_odds
