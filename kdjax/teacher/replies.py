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
# Words by which endpoints say why they ended a reply: the whole of one, in lower case. Where a reason has words of several
# kinds ("stop_timeout", "ERROR_TOXIC"), the first kind here decides.
REASONS = {
    FAILED: r"errors?|exceptions?|fail\w*|abort\w*|cancel\w*|timeout|timed|overload\w*|unavailable|resources?|malformed|"
    r"interrupt\w*|others?|rate|quota|busy|internal|server|memory|oom|preempt\w*|kill\w*|disconnect\w*|connection|network|"
    r"deadline|expired?|crash\w*|throttl\w*|evict\w*|lost|gateway|terminated|shutdown|unexpected|invalid|panic",
    FILTERED: r"\w*filter\w*|safety|unsafe|block\w*|prohibit\w*|recitation|refus\w*|sensitive|moderat\w*|guardrails?|s?pii|"
    r"toxic\w*|language|policy|violat\w*|violence|copyright\w*|inappropriate|jailbreak|cyber|harm\w*|hate|sexual|abus\w*|"
    r"forbidden|denied|disallowed|restricted|illegal|security|censor\w*|flagged",
    TOOL: r"tools?|functions?|pause",
}
# A reason that has no other words is the model's own end. Every other one, whatever it says, ended the reply before that.
END_WORDS = r"stop(?:ped)?|end(?:ed|ing|oftext)?|eo[sm]|eot|im|s|done|completed?|finish(?:ed)?|succe(?:ss|eded)"
MORE_END_WORDS = (
    r"turn|sequences?|tokens?|words?|str|string|text|sentence|message|of|id|found|matched|reached|hit|natural"
)
NO_WORDS = r"unspecified|unknown|undefined|null|none"
WHY = {
    FILTERED: "a filter of the endpoint held the answer back",
    FAILED: "the endpoint failed while it answered",
    TOOL: "the model asks for a tool, and there is none",
}
NOTHING = ("null", "None")  # an absent text that was printed
# Tokens that an endpoint's chat template should have kept to itself: those that end a turn, and a box for the answer.
_TOKEN = r"<\|(?:im_end|eo[ts]_id|eom_id|eo[tsm]|end|end_of_text|endoftext|end_of_turn|end_of_box|return|END_OF_TURN_TOKEN)\|>"
_TOKENS = re.compile(
    rf"\A\s*<\|begin_of_box\|>\s*|(?<!\s)\s*+(?:(?:{_TOKEN}|</s>|<end_of_turn>|<turn\|>|<eos>|<｜end▁of▁sentence｜>)\s*+)++\Z",
    re.IGNORECASE,
)
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
        NoAnswer: the reply failed, was filtered, or has no letter or digit outside its thinking.
    """
    ending = _ending(finish, written, most)
    if ending in WHY:
        raise NoAnswer(f"{WHY[ending]} (finish_reason {finish!r})", again=ending == FAILED)
    text = _TOKENS.sub("", text)
    said = without_thinking(text, cut=ending == CUT)
    if said is None:
        raise NoAnswer(f"its thinking never ended (finish_reason {finish!r}, {most} tokens allowed); {LONGER}")
    if not any(map(str.isalnum, said)) or said.strip() in NOTHING:
        spent = ending == CUT or (said != text and not said.strip())
        hint = f"; thinking may have used up its {most} tokens: {LONGER}" if spent else ""
        raise NoAnswer(f"the reply holds no text (finish_reason {finish!r}){hint}", again=ending == ENDED)
    return said, ending


def _ending(finish: str, written: int, most: int) -> str:
    """One of the five ends.

    Where the endpoint names none, the tokens decide: with fewer than allowed the model came to its own end. Where they
    are not counted either the reply may have been cut off, so only whole sentences of it count.
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", finish).lower().replace("time_out", "timeout")
    words = re.findall(r"[a-z0-9]+", spaced)
    if words[:2] in (["finish", "reason"], ["stop", "reason"]):
        words = words[2:]
    if all(re.fullmatch(NO_WORDS, word) for word in words):
        return ENDED if 0 < written < most else CUT
    for ending, pattern in REASONS.items():
        if any(re.fullmatch(pattern, word) for word in words):
            return ending
    ended = any(re.fullmatch(END_WORDS, word) for word in words)
    return ENDED if ended and all(re.fullmatch(f"{END_WORDS}|{MORE_END_WORDS}", word) for word in words) else CUT


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
    said = without_thinking(whole, begun, cut=finish != ENDED)
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
