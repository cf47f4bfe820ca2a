"""Sessions + cards → what the student reads: training examples and prompts, written to disk and proved to leak nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from kdjax.data import Domain, Session, prove_sources, reorder
from kdjax.decoding import Constraint, check_budget, refused_target
from kdjax.errors import InputError
from kdjax.prompting import ANSWER_MARKER, Example, ProductForm, check_lengths
from kdjax.reporting import write_jsonl
from kdjax.sources import Tokenizer
from kdjax.student import DecoderConfig
from kdjax.study.distil import Cards
from kdjax.study.settings import writes_thoughts
from kdjax.study.telling import Questions, Shown, Teller, ask, contexts


def product_form(config: ConfigDict) -> ProductForm:
    """How products are written in prompts."""
    return ProductForm(tuple(config.prompting.fields), config.prompting.title_words)


def teller(
    config: ConfigDict, tokenizer: Tokenizer, domains: Mapping[str, Domain], cards: Mapping[str, Cards]
) -> Teller:
    """How sessions are told: with the cards' knowledge, and with demonstrations from the training sessions of `domains`."""
    shown, asked = {}, config.prompting
    for name, forms in cards.items():
        thoughts = _thoughts(forms) if config.knowledge.thoughts_in == "demonstrations" else {}
        shown[name] = Shown(asked.demonstrations, tuple(domains[name].splits["train"]), thoughts, asked.encoder)
    return Teller(tokenizer, product_form(config), contexts(cards, config.knowledge.all_domains), shown)


def _thoughts(forms: Cards) -> dict[str, str]:
    """Session id → the thought about it."""
    return {card.sessions[0]: card.text for card in forms.get("thoughts", ())}


def constraint(config: ConfigDict, tokenizer: Tokenizer) -> Constraint:
    """The form of an answer: after free text where the student writes a thought first."""
    marker = ANSWER_MARKER if writes_thoughts(config) else ""
    return Constraint(config.eval.constraint, marker, tokenizer.answer_padding)


def answer_form(config: ConfigDict) -> dict:
    """How the trained student answers, as its adapter's kdjax.json tells job="generate"."""
    return {
        "answer": config.student.answer,
        "pair_layers": config.student.pair_layers,
        "orders": config.eval.orders,
        "max_new_tokens": config.eval.max_new_tokens,
        "thoughts_first": writes_thoughts(config),
    }


def training_set(
    config: ConfigDict, teller: Teller, domains: Mapping[str, Domain], cards: Mapping[str, Cards]
) -> list[list[Example]]:
    """Epoch by epoch all training sessions, told with their answers; the session's thought, if it has one, stands before the answer.

    With `train.shuffle_products` each epoch tells a session's products in another order, drawn from (seed, epoch), since
    their places mean nothing. A session with a thought in its target keeps its order: the thought speaks of products by number.
    """
    thoughts = {name: _thoughts(forms) if writes_thoughts(config) else {} for name, forms in cards.items()}

    def tell(name: str, session: Session, order: np.random.Generator | None) -> Example:
        thought = thoughts[name].get(session.id, "")
        if order is not None and not thought:
            session = reorder(session, order.permutation(len(session)).tolist())
        return teller.example(name, session, thought)

    shuffled = config.train.shuffle_products
    epochs = []
    for epoch in range(config.train.epochs if shuffled else 1):
        order = np.random.default_rng([config.seed, epoch]) if shuffled else None
        epochs.append([tell(name, s, order) for name, domain in domains.items() for s in domain.splits["train"]])
    return epochs if shuffled else epochs * config.train.epochs


def questions(
    config: ConfigDict, teller: Teller, domains: Mapping[str, Domain], split: str, orders: int = 1
) -> Questions:
    """The prompts of a split, at most `eval.max_sessions` per domain, told in so many orders."""
    asked = [
        (name, session)
        for name, domain in domains.items()
        for session in spread(domain.splits[split], config.eval.max_sessions)
    ]
    return ask(teller, asked, orders)


def spread(items: Sequence, limit: int) -> list:
    """At most `limit` items, evenly spaced (a split is ordered by session length, so its head is no sample); 0: all."""
    if not limit or len(items) <= limit:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, limit).round().astype(int)]


def check_before_distilling(
    config: ConfigDict, tokenizer: Tokenizer, domains: Mapping[str, Domain], ready: Mapping[str, Cards], positions: int
) -> None:
    """Every example must fit, whatever knowledge is still to come: what fails here would fail after hours of teacher calls.

    `ready` are the cards that are there already, or cost no teacher call.

    Raises:
        InputError: a split is empty, an example may exceed train.max_length, or the model's positions do not suffice.
    """
    check_splits(domains)
    tell = teller(config, tokenizer, domains, ready)
    prompts = [prompt for split in ("validation", "test") for prompt in questions(config, tell, domains, split).prompts]
    to_come = {form for forms in ready.values() for form in set(config.knowledge.formats) - set(forms)}
    context = config.knowledge.max_tokens + len(tokenizer.encode("\n\n")) if "rules" in to_come else 0
    context *= len(domains) if config.knowledge.all_domains else 1
    thought = config.knowledge.max_new_tokens + len(tokenizer.encode(f"\n{ANSWER_MARKER} "))
    if "thoughts" in to_come and not writes_thoughts(config):
        context += thought * config.prompting.demonstrations
    target = thought if "thoughts" in to_come and writes_thoughts(config) else 0
    epochs = training_set(config, tell, domains, ready)
    check_training(config, tokenizer, [*chain(*epochs)], positions, more=context + target)
    check_questions(config, prompts, positions, more=context)
    sessions = [session for domain in domains.values() for split in domain.splits.values() for session in split]
    check_answers(config, tokenizer, constraint(config, tokenizer), sessions)


def check_splits(domains: Mapping[str, Domain]) -> None:
    """No split may be empty."""
    for split in ("train", "validation", "test"):
        for name, domain in domains.items():
            if not domain.splits[split]:
                raise InputError(f"domain {name}: the {split} split is empty")


def check_answers(config: ConfigDict, tokenizer: Tokenizer, form: Constraint, sessions: Sequence[Session]) -> None:
    """eval.max_new_tokens must suffice for the shortest answer that `form` allows, for sessions of every size."""
    if form.mode != "none" and config.student.answer == "text":
        languages = [form.language(size) for size in sorted({len(s) for s in sessions})]
        check_budget(languages, tokenizer, config.eval.max_new_tokens)


def check_training(
    config: ConfigDict, tokenizer: Tokenizer, examples: Sequence[Example], positions: int, more: int = 0
) -> None:
    """Examples fit train.max_length, that fits the model's positions, and a student that writes can write its targets.

    `more` tokens are still to come in each example.
    """
    if config.train.max_length > positions:
        raise InputError(
            f"config.train.max_length={config.train.max_length}, but the student has only {positions} positions"
        )
    if config.train.max_steps != 0:
        check_lengths(examples, config.train.max_length, more)
        check_targets(config, tokenizer, examples)


def check_targets(config: ConfigDict, tokenizer: Tokenizer, examples: Sequence[Example]) -> None:
    """The constraint on answers allows every training target, token by token.

    A session without a thought has its bare answer for a target, also where others have thoughts before theirs.

    Raises:
        InputError: it forbids one; names its session.
    """
    form = constraint(config, tokenizer)
    if form.mode == "none" or config.student.answer != "text":
        return
    bare = replace(form, marker="")
    languages = [
        (form if ANSWER_MARKER in example.completion else bare).language(len(example.products)) for example in examples
    ]
    refused = refused_target(languages, tokenizer, [example.completion_ids for example in examples])
    if refused:
        index, why = refused
        example = examples[index]
        raise InputError(
            f"session {example.domain}/{example.session_id}: eval.constraint={form.mode!r} forbids its training target "
            f"{example.completion!r}: {why}; set eval.constraint='none' or leave the session out of the data"
        )


def check_layers(config: ConfigDict, shape: DecoderConfig) -> None:
    """The states that a pair head judges must be there to be read."""
    layers, there = config.student.pair_layers, shape.num_hidden_layers
    if layers > there:
        raise InputError(f"config.student.pair_layers={layers}, but the student has only {there} layers")


def check_questions(config: ConfigDict, prompts: Sequence[Example], positions: int, more: int = 0) -> None:
    """No prompt is longer, with its answer, than the model can place. `more` tokens are still to come."""
    longest = max(len(prompt.prompt_ids) for prompt in prompts) + more
    room = config.eval.max_new_tokens if config.student.answer == "text" else 0
    if longest + room > positions:
        raise InputError(
            f"a prompt of {longest} tokens and eval.max_new_tokens={room} exceed the student's {positions} positions"
        )


def prove_and_write(
    workdir: Path,
    domains: Mapping[str, Domain],
    cards: Mapping[str, Cards],
    epochs: Sequence[Sequence[Example]],
    prompts: Sequence[Example],
) -> int:
    """Prove that all knowledge, examples and demonstrations come from training sessions, then write
    examples/train.jsonl. Returns how many sources were proved.

    Where all epochs tell the examples alike they are written once.
    """
    told = epochs[:1] if all(examples is epochs[0] for examples in epochs) else epochs
    sources = [
        (f"{card.format} card {card.id}", name, card.sessions)
        for name, forms in cards.items()
        for form in forms.values()
        for card in form
    ]
    sources += [
        (f"training example {example.session_id}", example.domain, (example.session_id,)) for example in epochs[0]
    ]
    sources += [
        (f"demonstrations of {example.session_id}", example.domain, example.demonstrations)
        for example in chain(epochs[0], prompts)
        if example.demonstrations
    ]
    proved = prove_sources(domains, sources)
    rows = ({"session_id": e.session_id, "prompt": e.prompt, "completion": e.completion} for e in chain(*told))
    write_jsonl(workdir / "examples" / "train.jsonl", rows)
    return proved
