"""What both sides compute, as token ids: neither side's tokenizer or template plays a part."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kdjax.data import Domain
from kdjax.knowledge import annotation_rule_cards, knowledge_text
from kdjax.prompting import Example, prompt_example, training_example
from kdjax.reporting import write_json
from kdjax.sources import Tokenizer

RULES = 10  # in the prompt, as in a real study; from statistics, so that no teacher is needed


@dataclass(frozen=True)
class Workload:
    """All training examples and all test prompts of a domain, with rules in the prompt."""

    train: list[Example]
    test: list[Example]
    n_items: list[int]  # products of each test session


def build(domain: Domain, tokenizer: Tokenizer) -> Workload:
    """The real job's examples."""
    cards = annotation_rule_cards(
        domain.splits["train"],
        domain.name,
        limit=RULES,
        max_tokens=400,
        count_tokens=lambda text: len(tokenizer.encode(text)),
        log=lambda text: None,
    )
    rules = knowledge_text({"rules": cards})
    return Workload(
        [training_example(tokenizer, domain.name, session, rules) for session in domain.splits["train"]],
        [prompt_example(tokenizer, domain.name, session, rules) for session in domain.splits["test"]],
        [len(session) for session in domain.splits["test"]],
    )


def save(workload: Workload, path: Path) -> None:
    """Write the ids for the sides to read."""
    write_json(
        path,
        {
            "train": [[e.prompt_ids, e.completion_ids] for e in workload.train],
            "test": [e.prompt_ids for e in workload.test],
            "n_items": workload.n_items,
        },
    )


def load(path: str | Path) -> Workload:
    """What `save` wrote; the texts are left out."""
    ids = json.loads(Path(path).read_text())
    return Workload(
        [_example(i, prompt, completion) for i, (prompt, completion) in enumerate(ids["train"])],
        [_example(i, prompt) for i, prompt in enumerate(ids["test"])],
        ids["n_items"],
    )


def _example(number: int, prompt_ids: Sequence[int], completion_ids: Sequence[int] = ()) -> Example:
    return Example("domain", str(number), "", tuple(prompt_ids), "", tuple(completion_ids))
