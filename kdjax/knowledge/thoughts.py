"""Deep thoughts: for a training session whose bundles are known, the reasoning from products to intent to bundles."""

import re
from collections.abc import Sequence

from kdjax.data import Session
from kdjax.knowledge.cards import Card
from kdjax.knowledge.conversations import check_answered, log_left_out
from kdjax.knowledge.protocols import Ask, CountTokens, Log
from kdjax.prompting.answers import ANSWER_MARKER, answer_text
from kdjax.prompting.products import product_list
from kdjax.prompting.thinking import spoken
from kdjax.teacher import Answer, Call, NoAnswer, annotation_thought

PROMPT = """Products:
{products}
A shopper puts these product numbers together: {bundles}
Explain why, in at most two short sentences per bundle: what the products are, what the shopper wants to do with them, \
and so how they fit together. Call products by their numbers."""
_NUMBER_GROUP = re.compile(r"\d+(?:\s*(?:,\s*and\b|,|&|and\b)\s*\d+)+")  # "1, 3 and 4"


def think(
    sessions: Sequence[Session],
    ask: Ask,
    domain: str,
    *,
    max_new_tokens: int,
    count_tokens: CountTokens,
    log: Log = lambda line: None,
) -> list[Card]:
    """Ask the teacher for the thought of each training session: one card per session, in order.

    Sessions without bundles are not asked about, and one without an answer, or with an answer of no text, has no card. checks: "finished",
    whether the teacher came to an end (else the thought is cut to its last whole sentence); "names_answer", whether
    every bundle's product numbers stand in it together, such as "1, 3 and 4".

    Raises:
        InputError: more than half of the sessions asked about have no answer.
    """
    asked = [session for session in sessions if session.bundles]
    calls = [Call(conversation=(("user", _prompt(session)),), max_new_tokens=max_new_tokens) for session in asked]
    replies = ask(calls) if calls else []
    failed = [reply for reply in replies if isinstance(reply, NoAnswer)]
    check_answered("thoughts", failed, len(asked))
    log_left_out("thoughts", failed, len(asked), log)
    pairs = zip(asked, replies, strict=True)
    cards = [
        _teacher_card(session, reply, domain, count_tokens)
        for session, reply in pairs
        if not isinstance(reply, NoAnswer)
    ]
    return [card for card in cards if card.text]


def annotation_thoughts(sessions: Sequence[Session], domain: str, *, count_tokens: CountTokens) -> list[Card]:
    """The same without a teacher: thoughts written from the annotated intents."""
    texts = [(session, thought_text(annotation_thought(session))) for session in sessions if session.bundles]
    return [_card(session, text, (), True, domain, count_tokens) for session, text in texts if text]


def thought_text(text: str) -> str:
    """One line that can precede an answer: without thinking, the marker that begins an answer, and the answer itself."""
    marker = re.escape(ANSWER_MARKER)
    text = re.sub(rf"{marker}\s*\[\s*\[[\d\s,\[\]]*\]\s*\]", "", spoken(text))
    text = re.sub(rf"{marker}:*", ANSWER_MARKER.rstrip(":"), text)
    return " ".join(text.split())


def _prompt(session: Session) -> str:
    return PROMPT.format(products=product_list(session), bundles=answer_text(session.bundles))


def _teacher_card(session: Session, answer: Answer, domain: str, count_tokens: CountTokens) -> Card:
    finished = answer.finish_reason == "stop"
    text = thought_text(answer.text)
    whole = re.match(r".*[^\s\d][.!?](?=\s|$)", text)  # the digit is that of a list: "2. The cables"
    if not finished and whole:
        text = whole.group()
    return _card(session, text, (answer.key,), finished, domain, count_tokens)


def _card(
    session: Session, text: str, calls: tuple[str, ...], finished: bool, domain: str, count_tokens: CountTokens
) -> Card:
    named = [set(re.findall(r"\d+", group)) for group in _NUMBER_GROUP.findall(text)]
    bundles = [{str(item + 1) for item in bundle} for bundle in session.bundles]
    return Card(
        format="thoughts",
        domain=domain,
        text=text,
        sessions=(session.id,),
        calls=calls,
        support=1,
        tokens=count_tokens(text),
        checks={"finished": finished, "names_answer": all(bundle in named for bundle in bundles)},
    )
