"""AICL, the predecessor (arXiv 2312.16262): a model works out rules on the nearest training session, then bundles the
session it is asked about.

One dialogue per session, in the steps of the authors' code:

| step            | what is said                                                                   | turns  |
|-----------------|--------------------------------------------------------------------------------|--------|
| neighbour       | bundles of the nearest training session                                        | 1      |
| self-correction | their intents; the bundles again, given these; of what changed the intents     | 2 or 3 |
| auto-feedback   | each bundle against the nearest true one, in one of six types                  | 0 to 4 |
| rules           | which rules help to find bundles                                               | 1      |
| inference       | bundles of the session, by these rules; their intents                          | 1 or 2 |

The feedback tells the type and never the true bundle. A dialogue whose bundles name products that are not there ends,
and its session stays unanswered, as there. Left out is their feedback on intents, for which two other models rate them.
Bundles that the correction left as they were get their feedback, too. Where none is named, a hint of ours asks for one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kdjax.data import Session
from kdjax.knowledge.comparison import Finding, compare
from kdjax.knowledge.conversations import Conversations
from kdjax.knowledge.protocols import Ask, Log
from kdjax.prompting.answers import answer_text, parse_answer
from kdjax.prompting.products import product_list
from kdjax.teacher import Answer

FEEDBACK_ROUNDS = 4
AFTER_NEIGHBOUR = 2  # turns about the session itself; those before depend on its neighbour alone
MOST_TURNS = 5 + FEEDBACK_ROUNDS + AFTER_NEIGHBOUR
DEFINITION = (
    "A bundle is two or more products that one shopper would get for one purpose, to choose from or use together."
)
FORM = f"Answer only with lists of product numbers, such as {answer_text([(0, 2), (1, 4, 5)])}"
DETECT = f"{DEFINITION}\nProducts:\n{{products}}\nWhich of them form bundles? {FORM}"
INTENTS = "Name the intent of each bundle in three to five words, one line per bundle."
ADJUST = f"Given these intents, adjust the bundles where they do not fit. {FORM}"
FEEDBACK = f"Of your bundles:\n{{hints}}\nGive all bundles again. {FORM}"
RULES = "Which rules help to find the bundles? Write them down, one short sentence per line."
INFER = f"By these rules, which of these other products form bundles?\nProducts:\n{{products}}\n{FORM}"
HINTS = {
    "right": "is right: keep it.",
    "wrong": "is invalid: remove it.",
    "irrelevant": "holds products that do not belong: remove them.",
    "missing": "misses related products: append them.",
    "single": "is one product: a bundle has at least two related ones.",
}


@dataclass
class Dialogue:
    """One session's dialogue. `text` and `intents` are the answers about the session itself, "" where there are none."""

    session: Session
    neighbour: Session
    turns: list[tuple[str, str]] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    found: tuple[Finding, ...] = ()  # of the neighbour's bundles that were named last
    text: str = ""
    intents: str = ""


def aicl(pairs: Sequence[tuple[Session, Session]], ask: Ask, *, max_new_tokens: int, log: Log) -> list[Dialogue]:
    """Hold a dialogue about each (session, its nearest training session); all of them take each turn in one call of `ask`.

    `max_new_tokens` bounds every single turn. A dialogue in which the model has no answer ends there.

    Raises:
        InputError: those are more than half of the dialogues.
    """
    dialogues = [Dialogue(session, neighbour) for session, neighbour in pairs]
    talks = Conversations("AICL", dialogues, ask=ask, max_new_tokens=max_new_tokens, log=log)

    def bundles(what: str, dialogues: list[Dialogue], prompt: Callable[[Dialogue], str]) -> list[Dialogue]:
        """Let the neighbours' bundles be named; returns the dialogues that go on."""
        dialogues = talks.say(what, dialogues, prompt)
        for one in dialogues:
            one.found = compare(parse_answer(one.answers[-1].text, len(one.neighbour)), one.neighbour.bundles)
        return _going(dialogues)

    going = bundles(
        "bundles of the neighbours", dialogues, lambda one: DETECT.format(products=product_list(one.neighbour))
    )
    going = talks.say("intents", going, lambda one: INTENTS)
    first = {id(one): {*_named(one)} for one in going}
    going = bundles("self-correction", going, lambda one: ADJUST)
    talks.say("intents of what changed", [one for one in going if {*_named(one)} - first[id(one)]], lambda one: INTENTS)
    mistaken = going
    for number in range(1, FEEDBACK_ROUNDS + 1):
        mistaken = [one for one in mistaken if not _right(one)]
        mistaken = bundles(f"feedback, round {number}", mistaken, lambda one: FEEDBACK.format(hints=_hints(one)))
    going = talks.say("rules", _going(going), lambda one: RULES)
    going = talks.say("bundles", going, lambda one: INFER.format(products=product_list(one.session)))
    for one in going:
        one.text = one.answers[-1].text
    answered = [one for one in going if parse_answer(one.text, len(one.session)).bundles]
    answered = talks.say("their intents", answered, lambda one: INTENTS)
    for one in answered:
        one.intents = one.answers[-1].text
    off = len(talks.going(dialogues)) - len(talks.going(going))
    log(f"AICL: {off} of {len(dialogues)} dialogues ended on products that are not there")
    talks.end()
    return dialogues


def _going(dialogues: Sequence[Dialogue]) -> list[Dialogue]:
    """Those that named no product that is not there."""
    return [one for one in dialogues if all(finding.kind != "out_of_range" for finding in one.found)]


def _named(one: Dialogue) -> list[Finding]:
    return [finding for finding in one.found if finding.bundle]


def _right(one: Dialogue) -> bool:
    """Every bundle named is right: what was missed, the feedback does not tell."""
    named = _named(one)
    return bool(named) and all(finding.kind == "right" for finding in named)


def _hints(one: Dialogue) -> str:
    lines = [f"- [{', '.join(map(str, finding.bundle))}] {HINTS[finding.kind]}" for finding in _named(one)]
    return "\n".join(lines) or "- There are none: name at least one, of two or more products."
