"""How sessions are told to the student: knowledge first, then demonstrations, then the products; once or in several orders."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from ml_collections import ConfigDict

from kdjax.data import Session, reorder
from kdjax.knowledge import knowledge_text
from kdjax.prompting import Demonstration, Example, Neighbours, ProductForm, prompt_example, training_example
from kdjax.sources import Tokenizer
from kdjax.student import PairHead
from kdjax.study.distil import Cards
from kdjax.study.settings import writes_thoughts


@dataclass(frozen=True)
class Shown:
    """The sessions of one domain that may be demonstrations, of which a prompt shows the `count` nearest ones; the nearest comes last."""

    count: int = 0
    sessions: tuple[Session, ...] = ()
    thoughts: Mapping[str, str] = field(default_factory=dict)  # session id → what a teacher thought about it
    encoder: str = ""  # that finds the nearest ones; "": TF-IDF
    _find: Neighbours | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self):
        if self.count:
            object.__setattr__(self, "_find", Neighbours(self.sessions, self.encoder))

    def prepare(self, sessions: Sequence[Session]) -> None:
        """Get ready for these sessions, before each is asked about."""
        if self._find:
            self._find.prepare(sessions)

    def __call__(self, session: Session, trains: bool) -> tuple[Demonstration, ...]:
        """The demonstrations for a session; one that `trains` is among the sessions, and is not shown itself."""
        near = self._find(session, self.count, trains) if self._find else []
        return tuple(Demonstration(other, self.thoughts.get(other.id, "")) for other in reversed(near))


@dataclass(frozen=True)
class Teller:
    """Tells sessions, each with what its domain has to say."""

    tokenizer: Tokenizer
    form: ProductForm
    knowledge: Mapping[str, str]
    shown: Mapping[str, Shown] = field(default_factory=dict)

    def prompt(self, domain: str, session: Session) -> Example:
        """The question."""
        return prompt_example(self.tokenizer, domain, session, *self._said(domain, session, trains=False))

    def example(self, domain: str, session: Session, thought: str = "") -> Example:
        """The question and its answer."""
        knowledge, form, demonstrations = self._said(domain, session, trains=True)
        return training_example(self.tokenizer, domain, session, knowledge, thought, form, demonstrations)

    def without_demonstrations(self) -> "Teller":
        """Tells the same, but shows nothing: for one that has no use for examples of answers."""
        return replace(self, shown={})

    def _said(self, domain: str, session: Session, trains: bool) -> tuple[str, ProductForm, tuple[Demonstration, ...]]:
        shown = self.shown.get(domain, Shown())
        return self.knowledge[domain], self.form, shown(session, trains)


def contexts(cards: Mapping[str, Cards], all_domains: bool = False) -> dict[str, str]:
    """Domain → the knowledge that stands in its prompts: its own, or that of `all_domains`."""
    if not all_domains:
        return {name: knowledge_text(by_format) for name, by_format in cards.items()}
    forms = dict.fromkeys(form for by_format in cards.values() for form in by_format)
    together = {form: [card for by_format in cards.values() for card in by_format.get(form, ())] for form in forms}
    return dict.fromkeys(cards, knowledge_text(together))


@dataclass(frozen=True)
class Telling:
    """A prompt per session, which tells its products in the order beside it (positions, as `kdjax.data.reorder` takes them)."""

    orders: tuple[tuple[int, ...], ...]
    prompts: tuple[Example, ...]


@dataclass(frozen=True)
class Questions:
    """Sessions that are asked about, the domain of each, and their prompts: told once or several times, first in their own order."""

    domains: tuple[str, ...]
    sessions: tuple[Session, ...]
    tellings: tuple[Telling, ...]

    @property
    def prompts(self) -> tuple[Example, ...]:
        """Of the sessions as they are."""
        return self.tellings[0].prompts

    def some(self, places: Sequence[int]) -> "Questions":
        """The questions about the sessions at these places alone."""

        def pick(values: Sequence) -> tuple:
            return tuple(values[place] for place in places)

        tellings = (Telling(pick(telling.orders), pick(telling.prompts)) for telling in self.tellings)
        return Questions(pick(self.domains), pick(self.sessions), tuple(tellings))


def ask(teller: Teller, asked: Sequence[tuple[str, Session]], orders: int) -> Questions:
    """The prompts of sessions, (domain, session) each, told in so many orders."""

    for name, shown in teller.shown.items():
        shown.prepare([session for domain, session in asked if domain == name])

    def tell(number: int) -> Telling:
        told = [order(number, len(session)) for _, session in asked]
        prompts = [
            teller.prompt(name, reorder(session, places)) for (name, session), places in zip(asked, told, strict=True)
        ]
        return Telling(tuple(told), tuple(prompts))

    tellings = tuple(map(tell, range(orders)))
    return Questions(tuple(name for name, _ in asked), tuple(session for _, session in asked), tellings)


def order(number: int, size: int) -> tuple[int, ...]:
    """The order in which `size` products are told for the `number`-th time: their own, then backwards, then shuffled."""
    places = range(size)
    if number > 1:
        return tuple(np.random.default_rng([number, size]).permutation(size).tolist())
    return tuple(reversed(places) if number else places)


def fingerprint(model: str, config: ConfigDict, head: PairHead | None, asked: Questions) -> str:
    """sha256 (hex) of all that the answers of an untrained student depend on: which it is (the digest `model`), what it
    is asked, and how it answers."""
    written = [config.eval.constraint, config.eval.max_new_tokens, writes_thoughts(config)]
    form = written if head is None else config.student.pair_layers
    prompts = digest(prompt for told in asked.tellings for prompt in told.prompts)
    found = hashlib.sha256(json.dumps([_untrained(model, config), form, prompts]).encode())
    for name, part in sorted((head or {}).items()):
        found.update(name.encode() + np.asarray(part).tobytes())
    return found.hexdigest()


def head_fingerprint(model: str, config: ConfigDict, layers: int, examples: Iterable[Example]) -> str:
    """sha256 (hex) of all that a pair head fitted to the untrained student's states of `examples` depends on."""
    return hashlib.sha256(json.dumps([_untrained(model, config), layers, digest(examples)]).encode()).hexdigest()


def digest(examples: Iterable[Example]) -> str:
    """sha256 (hex) of what is read of examples, where their products are in it, and what is true of them."""
    told = [[one.domain, one.session_id, one.prompt_ids, one.products, one.bundles] for one in examples]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _untrained(model: str, config: ConfigDict) -> list:
    return [model, config.student.dtype, config.student.quantization]
