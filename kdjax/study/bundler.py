"""Bundles for new sessions, from Python: a trained adapter with its base, its prompt and its answers' probabilities.

bundler = Bundler.load("runs/sft_rules-…/adapter")
bundler.bundles([{"title": "Espresso machine"}, {"title": "Garden hose"}, {"title": "Burr grinder"}])
# [Bundle(products=(0, 2), probability=0.83)]
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from jaxtyping import Float

from kdjax.data import Session, session_of_products
from kdjax.decoding import (
    NO_BUNDLE,
    Completion,
    Constraint,
    Generator,
    StateReader,
    SteadyRows,
    bundle_probabilities,
    check_budget,
    likely_bundles,
    sure_answer,
)
from kdjax.errors import InputError
from kdjax.prompting import ANSWER_MARKER, INSTRUCTION, Example, parse_answer
from kdjax.sources import load_tokenizer, resolve
from kdjax.student import check_student, load_student
from kdjax.study.answering import Judged, Written
from kdjax.study.export import load_adapter_head, trained_with
from kdjax.study.telling import Questions, Teller, ask
from kdjax.training import Parallel

SLOTS, BUCKETS = 64, 3  # of a student that writes: answers side by side, and prompt lengths to compile for
PROBES = (("A", "B"), ("Zinc", "Yak"))  # titles of made-up sessions


@dataclass(frozen=True)
class Bundle:
    """Products that belong together: 0-based positions in the session, ascending, and the probability that exactly these
    form a bundle (None for a student that writes its answers)."""

    products: tuple[int, ...]
    probability: float | None = None


@dataclass(frozen=True)
class Answer:
    """What a session was answered with.

    `no_bundle` is the probability that no two products belong together, `pairs[i, j]` that products i and j share a
    bundle; both are None for a student that writes its answers.
    """

    bundles: tuple[Bundle, ...]
    no_bundle: float | None = None
    pairs: Float[np.ndarray, "products products"] | None = None


NOTHING = Answer((), no_bundle=1.0)


class Bundler:
    """A trained student that answers sessions. Compiled programs are kept; use `load` to make one."""

    def __init__(self, adapter: Path, trained: Mapping, answer: Judged | Written, weights: dict, teller: Teller):
        self.adapter, self.teller = adapter, teller
        self._trained, self._answer, self._weights = trained, answer, weights

    @classmethod
    def load(
        cls,
        adapter: str | Path,
        *,
        source: str = "",
        dtype: str = "float32",
        orders: int = 0,
        parallel: Parallel | None = None,
    ) -> Self:
        """The student of an adapter folder that a run left (`runs/…/adapter`).

        Args:
            adapter: the folder.
            source: the base model, where it is not found under the name that it had in training; it must be the same.
            dtype: of the base and the activations, "float32" or "bfloat16".
            orders: in how many orders a session's products are read, by a student that judges pairs; 0: as in training.
            parallel: the devices to use; all of this process, if None.

        Raises:
            InputError: something is missing or broken, or the base is not the one that the adapter was trained on.
        """
        folder = Path(adapter).expanduser()
        trained = trained_with(folder)
        source = source or trained["base"]["source"]
        files = resolve(source)
        if files.digest != trained["base"]["digest"]:
            raise InputError(
                f"{folder} was trained on {trained['base']['source']}, and {source} holds other weights; name the model "
                "that it was trained on"
            )
        if trained["instruction"] != INSTRUCTION:
            raise InputError(f"{folder} was trained with an instruction that this version of kdjax does not give")
        settings = {"adapter": folder, "quantization": trained["base"].get("quantization"), "dtype": dtype}
        shape, parallel = check_student(source, **settings), parallel or Parallel()
        tokenizer = load_tokenizer(files)
        teller = Teller(tokenizer, trained["products"], trained["knowledge"], trained["shown"])
        trained["orders"] = orders or trained["orders"]
        trained["positions"] = shape.max_position_embeddings
        if trained["answer"] == "pairs":
            layers = trained["pair_layers"]
            head = load_adapter_head(folder, trained["products"], shape.hidden_size, layers)
            student = load_student(source, **settings, place=parallel.place)
            steady = SteadyRows(_probes(teller))
            answer: Judged | Written = Judged(StateReader(student, layers, 0, parallel, steady))
            return cls(folder, trained, answer, {"adapter": student.adapter, "head": head}, teller)
        marker = ANSWER_MARKER if trained["thoughts_first"] else ""
        form = Constraint("items", marker, tokenizer.answer_padding)
        check_budget([form.language(2)], tokenizer, trained["max_new_tokens"])
        student = load_student(source, **settings, place=parallel.place)
        generator = Generator(
            student,
            max_new_tokens=trained["max_new_tokens"],
            rows_per_device=SLOTS,
            buckets=BUCKETS,
            parallel=parallel,
        )
        return cls(folder, trained, Written(generator, form), student.adapter, teller)

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains that the adapter was trained on."""
        return tuple(self.teller.knowledge)

    def bundles(
        self, products: Sequence[Mapping], domain: str | None = None, min_probability: float = 0.0
    ) -> list[Bundle]:
        """The bundles among the products of one session, likeliest first; none is an answer, too.

        Args:
            products: each with a "title", and with "categories" (paths from the root to the leaf, or one path) where
                the adapter was trained with them.
            domain: whose knowledge the prompt has, where the adapter was trained on several domains.
            min_probability: of a bundle that is named. A bundle less probable than there being none is never named.

        Raises:
            InputError: a product without a title, a session that is too long, an unknown domain.
        """
        return self.many([products], domain, min_probability)[0]

    def many(
        self, sessions: Sequence[Sequence[Mapping]], domain: str | None = None, min_probability: float = 0.0
    ) -> list[list[Bundle]]:
        """`bundles` of several sessions, which is faster than one by one."""
        return [list(answer.bundles) for answer in self.answers(sessions, domain, min_probability)]

    def answers(
        self, sessions: Sequence[Sequence[Mapping]], domain: str | None = None, min_probability: float = 0.0
    ) -> list[Answer]:
        """As `many`, with the probabilities of no bundle and of all pairs."""
        read = []
        for number, products in enumerate(sessions):
            try:
                read.append(session_of_products(products, id=str(number)))
            except InputError as error:
                raise InputError(f"sessions[{number}]: {error}") from error
        questions = self.ask(read, domain)
        if too_long := self.too_long(questions):
            number, tokens = next(iter(too_long.items()))
            raise InputError(f"sessions[{number}]: {tokens} tokens, and the student reads {self._trained['positions']}")
        if lacking := self.without_categories(read):
            total = sum(map(len, read))
            warnings.warn(
                f"{lacking} of {total} products have no categories, which this adapter was trained with; expect worse "
                "bundles",
                stacklevel=2,
            )
        return self.answer(questions, min_probability)

    def without_categories(self, sessions: Sequence[Session]) -> int:
        """How many products have no categories although the adapter was trained with them."""
        if self.teller.form.fields == ("title",):
            return 0
        return sum(not paths for session in sessions for paths in session.categories)

    def ask(self, sessions: Sequence[Session], domain: str | None = None) -> Questions:
        """The prompts of sessions."""
        domain = self.domain(domain)
        orders = self._trained["orders"] if isinstance(self._answer, Judged) else 1
        return ask(self.teller, [(domain, session) for session in sessions], orders)

    def too_long(self, questions: Questions) -> dict[int, int]:
        """Session (by its place) → tokens, of those that are longer, with their answer, than the student can read."""
        room = self._trained["positions"]
        room -= self._trained["max_new_tokens"] if isinstance(self._answer, Written) else 0
        tokens = {place: len(prompt.prompt_ids) for place, prompt in enumerate(questions.prompts)}
        return {place: count for place, count in tokens.items() if count > room}

    def answer(
        self,
        questions: Questions,
        min_probability: float = 0.0,
        on_batch: Callable[[int], None] = lambda prompts: None,
    ) -> list[Answer]:
        """The answers to questions, in their order. Sessions of fewer than two products have no bundle."""
        asked = [place for place, session in enumerate(questions.sessions) if len(session) > 1]
        found = [NOTHING] * len(questions.sessions)
        if not asked:
            return found
        some = questions.some(asked)
        if isinstance(self._answer, Judged):
            judged = self._answer.log_odds(self._weights, some, on_batch)
            answers = [self._judged(one, min_probability) for one in judged]
        else:
            written = self._answer(self._weights, some, on_batch)
            answers = [_written(one, len(session)) for one, session in zip(written, some.sessions, strict=True)]
        for place, answer in zip(asked, answers, strict=True):
            found[place] = answer
        return found

    def _judged(self, log_odds: Float[np.ndarray, "products products"], min_probability: float) -> Answer:
        beliefs = self._trained["no_bundle"](likely_bundles(log_odds))
        probable = bundle_probabilities(beliefs)
        named = sorted(sure_answer(beliefs, min_probability), key=lambda bundle: (-probable[bundle], bundle))
        pairs = 1.0 / (1.0 + np.exp(-log_odds))
        np.fill_diagonal(pairs, 1.0)
        return Answer(tuple(Bundle(bundle, probable[bundle]) for bundle in named), beliefs[NO_BUNDLE], pairs)

    def domain(self, wanted: str | None) -> str:
        """The domain whose knowledge prompts have: the one that is wanted, or the only one. InputError if that is none."""
        known = self.teller.knowledge
        alike = len(set(known.values())) == 1 and not any(shown.count for shown in self.teller.shown.values())
        if not wanted and (len(known) == 1 or alike):
            return next(iter(known))
        if wanted is None or wanted not in known:
            raise InputError(f"domain={wanted!r}: {self.adapter} was trained on {', '.join(known)}; name one of them")
        return wanted


def _written(completion: Completion, n: int) -> Answer:
    named = {tuple(sorted({number - 1 for number in bundle})) for bundle in parse_answer(completion.text, n).bundles}
    return Answer(tuple(Bundle(bundle) for bundle in sorted(named) if len(bundle) > 1))


def _probes(teller: Teller) -> tuple[Example, ...]:
    """Two prompts per domain whose products have nothing in common."""
    sessions = [Session("probe", titles, titles, ((),) * len(titles)) for titles in PROBES]
    return ask(teller, [(domain, session) for domain in teller.knowledge for session in sessions], orders=1).prompts
