"""Self-reflection: the teacher bundles training sessions, is told what was wrong, and draws rules from its mistakes.

The paper's five steps take four turns, because we do the comparison ourselves and do not trust the teacher with it:

| step                          | who                | turn |
|-------------------------------|--------------------|------|
| 1. bundles of the session     | teacher            | 1    |
| 2. compare with the truth     | `comparison`       | -    |
| 3. the discrepancies          | teacher, told of 2 | 2    |
| 4. their underlying causes    | teacher            | 3    |
| 5. rules                      | teacher            | 4    |

A session without mistakes has nothing to discuss and goes from turn 1 to turn 4. Prompts are short on purpose: a small
teacher on a laptop reads each of them four times per session.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from kdjax.data import Session
from kdjax.knowledge.comparison import Finding, compare, feedback, is_right
from kdjax.knowledge.conversations import Conversations
from kdjax.knowledge.protocols import Ask, Log
from kdjax.knowledge.rule_lines import rule_lines
from kdjax.prompting.answers import answer_text, parse_answer
from kdjax.prompting.products import product_list
from kdjax.teacher import Answer

MAX_RULES = 3  # per session

DETECT = """A bundle is two or more products that one shopper would get for one purpose, to choose from or use together.
Products:
{products}
Which of them form bundles? Answer only with lists of product numbers, such as {example}"""
DISCREPANCIES = """The true bundles are known. Your answer against them:
{feedback}
Which kinds of products did you wrongly put together or leave out? Answer in one sentence."""
CAUSES = "Why did that happen? Name the underlying cause in one sentence."
RULES = """{opening}Write at most three short rules that help to find the bundles in other lists of products.
One full sentence per line, about kinds of products."""


@dataclass(frozen=True)
class RuleCandidate:
    """A rule as the teacher put it for one session; `calls` are the keys of the whole conversation that led to it."""

    text: str
    session: str
    calls: tuple[str, ...]


@dataclass
class _Reflection:
    """One session's conversation so far."""

    session: Session
    turns: list[tuple[str, str]] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    findings: tuple[Finding, ...] = ()


TURNS = 4  # of a reflection, at most: bundles, discrepancies, causes, rules


def reflect(sessions: Sequence[Session], ask: Ask, *, max_new_tokens: int, log: Log) -> list[RuleCandidate]:
    """Run the self-reflection on training sessions and return the rules, in session order, at most three a session.

    All sessions take each turn in one call of `ask`. `max_new_tokens` bounds every single turn. A session that the
    teacher has no answer about is left out.

    Raises:
        InputError: those are more than half of the sessions.
    """
    reflections = [_Reflection(session) for session in sessions]
    talks = Conversations("reflection", reflections, ask=ask, max_new_tokens=max_new_tokens, log=log)
    reflections = talks.say("bundles", reflections, _detect)
    for reflection in reflections:
        answer = parse_answer(reflection.answers[0].text, len(reflection.session))
        reflection.findings = compare(answer, reflection.session.bundles)
    mistaken = [reflection for reflection in reflections if not is_right(reflection.findings)]
    log(f"reflection: {len(reflections) - len(mistaken)} of {len(reflections)} sessions answered without a mistake")
    talks.say("discrepancies", mistaken, _discrepancies)
    talks.say("causes", mistaken, lambda reflection: CAUSES)
    reflections = talks.say("rules", reflections, _rules)
    talks.end()
    return _candidates(reflections, log)


def _detect(reflection: _Reflection) -> str:
    return DETECT.format(products=product_list(reflection.session), example=answer_text([(0, 2), (1, 4, 5)]))


def _discrepancies(reflection: _Reflection) -> str:
    return DISCREPANCIES.format(feedback=feedback(reflection.findings))


def _rules(reflection: _Reflection) -> str:
    return RULES.format(opening="Your answer is right. " if is_right(reflection.findings) else "")


def _candidates(reflections: list[_Reflection], log: Log) -> list[RuleCandidate]:
    candidates: list[RuleCandidate] = []
    dropped: Counter[str] = Counter()
    for reflection in reflections:
        last = reflection.answers[-1]
        rules, faults = rule_lines(last.text, reflection.session, finished=last.finish_reason == "stop")
        dropped += faults
        calls = tuple(answer.key for answer in reflection.answers)
        candidates += [RuleCandidate(rule, reflection.session.id, calls) for rule in rules[:MAX_RULES]]
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items()))
    log(f"reflection: {len(candidates)} rules" + (f"; lines dropped: {reasons}" if reasons else ""))
    return candidates
