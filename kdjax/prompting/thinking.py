"""What a reasoning model thinks aloud is not its answer: where thinking begins and ends in a text, and what is left.

A block stands at the beginning, on a line of its own or after a sentence, in any of the spellings of `SPELLINGS`. Some
chat templates open it, so that only its end is in the text. A spelling in the middle of a sentence or in quotation
marks is a mention of it, and stays.
"""

import re
from typing import NamedTuple


class Spelling(NamedTuple):
    """How a family of models marks thinking: regular expressions of its beginning and its end.

    `distinct`: no marks but of thinking, so the end counts alone, too. Words that an answer may hold as well begin a
    block only where the text begins.
    """

    begin: str
    end: str
    distinct: bool = True


_TAG = (
    r"(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|scratchpad|analysis|(?:seed|longcat|ant)[:_]?think(?:ing)?)"
)
_CHANNEL = r"(?:<\|start\|>assistant)?<\|channel\|>\s*"
_HEADER = r"(?:(?!<\|message\|>).){0,80}<\|message\|>"
SPELLINGS = {
    "tags (Qwen, DeepSeek, EXAONE, Seed and most others)": Spelling(rf"<{_TAG}(?:\s[^<>]{{0,80}})?>", rf"</{_TAG}\s*>"),
    "tags with bars": Spelling(rf"<\|(?:begin_of_|start_of_)?{_TAG}\|>", rf"<\|(?:/|end_of_|end_){_TAG}\|>"),
    "Cohere Command": Spelling(r"<\|START_THINKING\|>", r"<\|END_THINKING\|>"),
    "Magistral": Spelling(r"\[THINK\]", r"\[/THINK\]"),
    "Kimi": Spelling(r"◁think▷", r"◁/think▷"),
    "Harmony (gpt-oss)": Spelling(
        rf"{_CHANNEL}(?:analysis|commentary){_HEADER}", rf"(?:<\|end\|>\s*)?{_CHANNEL}final{_HEADER}"
    ),
    "Harmony without its special tokens": Spelling(r"analysis(?=\w)", r"assistantfinal", distinct=False),
    "Gemma": Spelling(r"<\|channel>thought\b", r"<channel\|>"),
    "Granite": Spelling(r"Here is my thought process:", r"Here is my response:", distinct=False),
    "Apriel": Spelling(r"Here are my reasoning steps:", r"\[BEGIN FINAL RESPONSE\]", distinct=False),
}
_MARKER = re.compile(
    "|".join(f"(?P<begin{n}>{one.begin})|(?P<end{n}>{one.end})" for n, one in enumerate(SPELLINGS.values())),
    re.IGNORECASE,
)
_WHICH = {f"{what}{n}": (what == "begin", n) for n in range(len(SPELLINGS)) for what in ("begin", "end")}
_DISTINCT = [one.distinct for one in SPELLINGS.values()]
_LEFT_OPEN = re.compile(rf"(?:{'|'.join(one.begin for one in SPELLINGS.values())})\s*\Z", re.IGNORECASE)
# What models put around the answer that follows their thinking.
_FRAME = re.compile(
    r"\A\s*(?:<(answer|response|solution|output)>|<\|(?:begin_of_solution|START_RESPONSE|content)\|>)\s*"
    r"|\s*(?:</(?:answer|response|solution|output)>|<\|(?:end_of_solution|END_RESPONSE|return|end|call)\|>"
    r"|\[END FINAL RESPONSE\])\s*\Z",
    re.IGNORECASE,
)
_BREAK = re.compile(r"(?:\n|[.!?:…]\s)\s*\Z")
_QUOTES = "`'\"‘’“”«»"


def without_thinking(text: str, begun: bool = False) -> str | None:
    """`text` without its thinking; unchanged where there is none. None where thinking never ends: there is no answer.

    `begun`: the prompt had already opened a block.
    """
    left = _cut(text, begun)
    while left is not None and left != text:  # what was nested, or repeated
        text, left = left, _cut(left, False)
    return left


def spoken(text: str) -> str:
    """`without_thinking`, and "" where there is no answer."""
    return without_thinking(text) or ""


def opens_thinking(prompt: str) -> bool:
    """Whether the end of a rendered prompt opens a block, so that what is generated begins inside it."""
    return _LEFT_OPEN.search(prompt[-200:]) is not None


def _cut(text: str, thinking: bool) -> str | None:
    kept: list[str] = []
    start = 0  # of what is said since the last block
    found = thinking
    for marker in _MARKER.finditer(text):
        begins, number = _WHICH[marker.lastgroup or ""]
        if thinking:
            if not begins and not _is_quoted(text, marker):
                start, thinking = marker.end(), False
        elif begins:
            if _is_block(text, start if _DISTINCT[number] else None, marker):
                kept.append(text[start : marker.start()])
                thinking = found = True
        elif _DISTINCT[number] and not _is_mention(text, marker):
            kept.clear()  # thinking that the template opened
            start, found = marker.end(), True
    if thinking:
        return None
    if not found:
        return text
    left = "".join([*kept, text[start:]])
    return _FRAME.sub("", left).strip()


def _is_block(text: str, start: int | None, marker: re.Match) -> bool:
    """Whether a beginning stands where a block may: at `start`, or on a new line or after a sentence; not in quotes.

    None for `start`: only where the text begins.
    """
    near = marker.start() - 20
    before = text[max(start or 0, near) : marker.start()]
    if near <= (start or 0) and not before.strip():
        return not _is_quoted(text, marker)
    return start is not None and bool(_BREAK.search(before)) and not _is_quoted(text, marker)


def _is_mention(text: str, marker: re.Match) -> bool:
    """Whether an end stands as a word in a sentence ("the tag </think> ends it") or in quotes."""
    inside = re.search(r"[^\s.!?:…] \Z", text[max(0, marker.start() - 2) : marker.start()])
    goes_on = re.match(r"[,;]|\.\s| [a-z]", text[marker.end() : marker.end() + 2])
    return _is_quoted(text, marker) or (inside is not None and goes_on is not None)


def _is_quoted(text: str, marker: re.Match) -> bool:
    before, after = text[max(0, marker.start() - 1) : marker.start()], text[marker.end() : marker.end() + 1]
    return bool(before and after) and before in _QUOTES and after in _QUOTES
