"""A reply is not yet an answer: the one place between what came and what counts as said.

Whatever a teacher replies goes through `read`, when it comes and again whenever it is read from the cache, so that
answers recorded by earlier versions are read by the same rules.
"""

import re
from collections.abc import Sequence
from typing import ClassVar

from kdjax.prompting.thinking import opens_thinking, without_thinking
from kdjax.sources import Tokenizer
from kdjax.teacher.calls import Request

NAMED = 3  # failed prompts in an error

ENDED, CUT, FILTERED, FAILED, TOOL = "stop", "length", "filtered", "failed", "tool"
# What endpoints call the end of a reply, in lower case with _ between words. The first pattern that is found decides.
ENDINGS = {
    r"length|max.*tokens|token_limit|context_window|truncated|incomplete": CUT,
    r"error|fail|abort|cancel|timeout|time_out|overload|unavailable|resource|malformed|interrupt|other": FAILED,
    r"filter|safety|block|prohibit|recitation|refus|sensitive|moderat|guardrail|spii|toxic|language": FILTERED,
    r"tool|function|pause_turn": TOOL,
    r"\A(?:(?:stop|end|eos|eot)(?:_.*)?|stopped|im_end|done|completed?|finish(?:ed)?|success)\Z": ENDED,
}
WHY = {
    FILTERED: "a filter of the endpoint held the answer back",
    FAILED: "the endpoint failed while it answered",
    TOOL: "the model asks for a tool, and there is none",
}
LONGER = "raise knowledge.max_new_tokens, or let the teacher answer without thinking (teacher.thinking=False)"


class Failure(Exception):
    """Why a prompt has no answer.

    `again`: another attempt may help, after `wait` seconds where the endpoint says so. `hopeless`: no prompt would be
    answered.
    """

    attempts: ClassVar[int] = 6  # at most, in one pass

    def __init__(self, reason: str, *, again: bool = False, hopeless: bool = False, wait: float = 0.0):
        super().__init__(reason)
        self.again, self.hopeless, self.wait = again, hopeless, wait


class NoAnswer(Failure):
    """The teacher did reply, but with nothing that could be used. It is recorded, and never taken for an answer.

    What an endpoint failed to answer is asked again by the next run. `row`: the reply's columns of `Answer`, where it
    just came.
    """

    attempts = 3  # a model that says nothing mostly keeps to it

    def __init__(self, reason: str, *, again: bool = False, row: dict | None = None):
        super().__init__(reason, again=again)
        self.row = row or {}


def read(text: str, finish: str, written: int, most: int) -> tuple[str, str]:
    """What an endpoint's reply says, without thinking, and how it ended: "stop" or "length" (cut off).

    Args:
        text: the message.
        finish: the endpoint's word for the end; "" where it has none.
        written: tokens that it counted; 0 where it does not count.
        most: `max_new_tokens` of the call.

    Raises:
        NoAnswer: the reply is empty, failed, filtered, or nothing but thinking.
    """
    ending = _ending(finish, written, most)
    if ending in WHY:
        raise NoAnswer(f"{WHY[ending]} (finish_reason {finish!r})", again=ending == FAILED)
    said = without_thinking(text)
    if said is None:
        raise NoAnswer(f"its thinking never ended (finish_reason {finish!r}, {most} tokens allowed); {LONGER}")
    if not said.strip():
        spent = ending == CUT or said != text
        hint = f"; thinking may have used up its {most} tokens: {LONGER}" if spent else ""
        raise NoAnswer(f"the reply holds no text (finish_reason {finish!r}){hint}", again=ending == ENDED)
    return said, ending


def is_end(finish: str) -> bool:
    """Whether an endpoint's word says that the model came to its own end."""
    return _ending(finish, 0, 0) == ENDED


def _ending(finish: str, written: int, most: int) -> str:
    """One of the five ends.

    A word that nobody knows, or none, is judged by the tokens written: with fewer than allowed the model came to its
    own end. Where they are not counted either the reply may have been cut off, so only whole sentences of it count.
    """
    word = re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", finish).lower()).strip("_")
    for pattern, ending in ENDINGS.items():
        if re.search(pattern, word):
            return ending
    return ENDED if 0 < written < most else CUT


def name_failures(failed: Sequence[tuple[Request, Failure]], answered: int) -> str:
    """The lines of an error that say which prompts failed and why, the most telling first, and what is kept."""
    named = sorted(failed, key=lambda pair: not pair[1].hopeless)[:NAMED]
    text = "".join(
        f"\n  the prompt that ends in {request.call.conversation[-1][1][-80:]!r}: {failure}"
        for request, failure in named
    )
    text += f"\n  … and {len(failed) - len(named)} more" if len(failed) > len(named) else ""
    return f"{text}\n{answered} answers came and are kept; the same command again asks only what is missing"


def generated(tokenizer: Tokenizer, prompt_ids: Sequence[int], token_ids: Sequence[int], finish: str) -> str:
    """The text of what a model generated after a prompt, without thinking and end-of-turn token; "" if it said nothing.

    Raises:
        NoAnswer: its tokens were used up before its thinking ended, or before anything followed it.
    """
    ids = token_ids[:-1] if finish == ENDED else token_ids
    plain, whole = (tokenizer.decode(ids, skip_special_tokens=skip) for skip in (True, False))
    begun = opens_thinking(tokenizer.decode(prompt_ids[-64:], skip_special_tokens=False))
    said = without_thinking(whole, begun)
    if said == whole:
        return plain
    if said is None or (not said and finish != ENDED):
        what = "it ended its turn while thinking" if finish == ENDED else "its thinking used up all its tokens"
        raise NoAnswer(f"{what} ({len(token_ids)} of them); {LONGER}")
    return tokenizer.decode(tokenizer.encode(said)).strip()


def cut_prompt(texts: Sequence[str], counted: int) -> int:
    """The tokens that a prompt has at least, where an endpoint `counted` fewer, since it read a part alone; else 0.

    No tokenizer in use joins words into one token, or spends less than one on 32 bytes of text.
    """
    least = sum(max(len(text.split()), len(text.encode(errors="replace")) // 32) for text in texts)
    return least if 0 < counted < least else 0
