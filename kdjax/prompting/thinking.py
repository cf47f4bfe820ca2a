"""What a reasoning model thinks aloud is not its answer: where thinking begins and ends in a text, and what is left.

Thinking comes at the beginning of a text, whether the text opens it or the chat template has. Elsewhere only blocks with
marks of their own are cut, and only between sentences: within one, or in quotation marks, a mark is mentioned, and stays.
"""

import re
from typing import NamedTuple


class Spelling(NamedTuple):
    """How a family of models marks thinking: regular expressions of its beginning and its end.

    `distinct`: these marks mean nothing else, so the end counts alone, and a block may be anywhere. Words that an answer
    may use as well are a block only at the beginning of a text, and where the end follows or the text was cut off.
    """

    begin: str
    end: str
    distinct: bool = True


_NAME = r"(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|scratchpad|analysis|monologue|rationale|cot)"
_TAG = (
    rf"(?:[a-z]{{1,12}}[:_]?)?{_NAME}(?:_[a-z_]{{1,20}})?"  # seed:think, longcat_think, antthinking, thinking_process
)
_OPEN, _CLOSE = r"(?:<|&lt;)\s{0,4}", r"\s{0,4}(?:>|&gt;)"
_OF = r"(?:begin|start)[_▁]of[_▁]"
_CHANNEL = r"(?:<\|start\|>assistant)?<\|channel\|>\s*"
_HEADER = r"(?:(?!<\|message\|>).){0,80}<\|message\|>"
_HERE_IS = r"\*{0,2}Here(?:['’]s| is) my"
SPELLINGS = {
    "tags (Qwen, DeepSeek, EXAONE, Seed and most others)": Spelling(
        rf"{_OPEN}{_TAG}(?:\s[^<>]{{0,80}})?{_CLOSE}", rf"{_OPEN}/\s{{0,4}}{_TAG}{_CLOSE}"
    ),
    "tags with bars (Solar, Sky-T1, Cohere Command)": Spelling(
        rf"<[|｜](?:{_OF}|start_)?{_NAME}(?:[:_]start)?[|｜]>",
        rf"<[|｜](?:(?:/|end[_▁]of[_▁]|end_){_NAME}|{_NAME}[:_]end)[|｜]>",
    ),
    "Magistral": Spelling(r"\[THINK\](?! [a-z])", r"\[/THINK\]"),
    "Kimi": Spelling(r"◁think▷", r"◁/think▷"),
    "Harmony (gpt-oss)": Spelling(
        rf"{_CHANNEL}(?:analysis|commentary){_HEADER}", rf"(?:<\|end\|>\s*)?{_CHANNEL}final{_HEADER}"
    ),
    "Harmony without its special tokens": Spelling(
        r"\A\s*(?-i:analysis)(?=(?-i:[A-Z])|\n)", r"(?-i:assistantfinal)", distinct=False
    ),
    "Gemma": Spelling(r"(?:<\|channel>|<unused94>)thought\b", r"<channel\|>|<unused95>"),
    "Granite": Spelling(rf"{_HERE_IS} thought process:\*{{0,2}}", rf"{_HERE_IS} response:\*{{0,2}}", distinct=False),
    "Apriel": Spelling(r"Here are my reasoning steps:", r"\[BEGIN FINAL RESPONSE\]", distinct=False),
    "Ollama's terminal": Spelling(r"Thinking(?:\.\.\.|…)\s*\n", r"(?:\.\.\.|…)\s?done thinking\.", distinct=False),
    "Open WebUI": Spelling(r"<details\s[^<>]{0,80}type=\W?reasoning[^<>]{0,80}>", r"</details>", distinct=False),
}
_MARKER = re.compile(
    "|".join(f"(?P<begin{n}>{one.begin})|(?P<end{n}>{one.end})" for n, one in enumerate(SPELLINGS.values())),
    re.IGNORECASE,
)
_WHICH = {f"{what}{n}": (what == "begin", n) for n in range(len(SPELLINGS)) for what in ("begin", "end")}
_DISTINCT = [one.distinct for one in SPELLINGS.values()]
_ANY = -1  # the spelling of a block that the template opened: unknown
_LEFT_OPEN = re.compile(rf"(?:{'|'.join(one.begin for one in SPELLINGS.values())})\s*\Z", re.IGNORECASE)
# What models put around the answer that follows their thinking.
_FRAME = re.compile(
    r"\A\s*(?:<(answer|response|solution|output)>|<\|(?:begin_of_solution|begin_of_box|START_RESPONSE|content)\|>)\s*"
    r"|(?<!\s)\s*(?:</(?:answer|response|solution|output)>"
    r"|<\|(?:end_of_solution|end_of_box|END_RESPONSE|return|end|call)\|>|\[END FINAL RESPONSE\])\s*\Z",
    re.IGNORECASE,
)
_WITHIN = re.compile(r"[^\s.!?…。！？)\]}>|] ?\Z")  # what comes before a mark within a sentence
_GOES_ON = re.compile(r"[,;.:!?)…]|[\"'`’”»](?!\w)| [a-z]")  # what comes after it
_WORD = re.compile(r"\S")
_QUOTES = "`'\"‘’“”«»"


def without_thinking(text: str, begun: bool = False, cut: bool = False) -> str | None:
    """`text` without its thinking; unchanged where there is none. None where thinking never ends: there is no answer.

    Args:
        text: what a model wrote.
        begun: the prompt had already opened a block.
        cut: the text was cut off, so that a block's end may be missing.
    """
    left = _cut(text, begun, cut)
    while left is not None and left != text:  # what was nested, or repeated
        text, left = left, _cut(left, False, cut)
    return left


def spoken(text: str) -> str:
    """`without_thinking`, and "" where there is no answer."""
    return without_thinking(text) or ""


def opens_thinking(prompt: str) -> bool:
    """Whether the end of a rendered prompt opens a block, so that what is generated begins inside it."""
    return _LEFT_OPEN.search(prompt[-200:]) is not None


def _cut(text: str, begun: bool, cut: bool) -> str | None:
    markers = [
        (*_WHICH[found.lastgroup or ""], found) for found in _MARKER.finditer(text) if not _is_quoted(text, found)
    ]
    last_end = {number: found.start() for begins, number, found in markers if not begins}
    last_end[_ANY] = max(last_end.values(), default=-1)
    kept: list[str] = []
    said = False  # whether anything in `kept` is more than blanks
    start = 0  # of what is said since the last block
    mention = -1  # the end of a beginning that is merely mentioned
    block = _ANY if begun else None  # the spelling of the block that is open
    blocks = begun
    for begins, number, found in markers:
        if block is not None:
            # A thought may mention the tag that will end it.
            ends = not begins and block in (_ANY, number)
            if ends and (found.start() == last_end[block] or not _is_mention(text, found)):
                start, block = found.end(), None
        elif begins:
            word = _WORD.search(text, start)
            first = word is not None and word.start() >= found.start() and not said
            closed = last_end.get(number, -1) > found.start()
            never_ended = cut and not closed
            if first:
                opens = _DISTINCT[number] or closed or cut
            else:
                opens = _DISTINCT[number] and (never_ended or not _is_within(text, found))
            if opens:
                kept.append(text[start : found.start()])
                said = said or not first
                block, blocks = number, True
            else:
                mention = found.end()
        elif _DISTINCT[number] and not _is_mention(text, found, mention):
            kept.clear()  # thinking that the template opened
            start, blocks, said = found.end(), True, False
    if not blocks:
        return text
    if block is not None and (cut or not said):
        return None
    return _FRAME.sub("", "".join(kept if block is not None else [*kept, text[start:]])).strip()


def _is_within(text: str, mark: re.Match) -> bool:
    """Whether a mark comes after a word of its sentence."""
    return _WITHIN.search(text[max(0, mark.start() - 2) : mark.start()]) is not None


def _is_mention(text: str, end: re.Match, begin: int = -1) -> bool:
    """Whether an end is a word of a sentence that goes on after it, or is complete with it ("Don't write </think>").

    `begin`: where the mention of a beginning ended; then the end is mentioned as well if it is on the same line.
    """
    goes_on = _GOES_ON.match(text, end.end()) is not None
    if text[max(0, end.start() - 1) : end.start()] == " " and _is_within(text, end):
        return goes_on or _WORD.search(text, end.end()) is None
    return goes_on and begin >= 0 and "\n" not in text[begin : end.start()]


def _is_quoted(text: str, marker: re.Match) -> bool:
    before, after = text[max(0, marker.start() - 1) : marker.start()], text[marker.end() : marker.end() + 1]
    return bool(before and after) and before in _QUOTES and after in _QUOTES
