"""A teacher's free text → the lines of it that are general rules."""

import re
from collections import Counter

from kdjax.data import Session
from kdjax.prompting.thinking import spoken

MAX_WORDS = 25
MIN_WORDS = 4  # fewer words are a heading or a fragment
QUOTE_WORDS = 4  # this many consecutive words of a title count as a quotation

_PREFIX = re.compile(r"^(?:[\s\-*•–>#]|\(?\d{1,2}[.):](?!\d)|rules?\s*\d*\s*[:.)])+", re.IGNORECASE)
_QUOTED = re.compile(r"[\"“]([^\"“”]*)[\"”]")
_NUMBERS = re.compile(  # "product 3", "[1", "1 and 3", but not "bundle 2 or more products"
    r"\b(?:products?|items?|bundles?|numbers?)\s*#?\d+\b(?!\s*(?:or more|products|items))"
    r"|\[\s*\d|\b\d+(?:\s*,\s*|\s+and\s+|\s*&\s*)\d",
    re.IGNORECASE,
)
_TALK = re.compile(
    r"\bI\b|\b[Mm]y\b|\b[Rr]ules?\b|\b[Yy]our (?:answer|bundle)|\b[Tt]rue bundle|\b[Pp]roduct (?:name|number)"
)


def rule_lines(text: str, session: Session, *, finished: bool) -> tuple[list[str], Counter[str]]:
    """Read the rules in `text`, one per line, and count by reason the lines that are none.

    Thinking, numbering, bullets and markdown are stripped. What speaks of this one session is dropped, because a rule is used on
    others: product numbers, quoted titles (four words of one in a row, or a shorter title as a whole) and the
    conversation itself ("I", "the first rule", "product numbers"). So are long lines, questions, fragments, repeats.
    `finished=False` says that the teacher was cut off: then the last line counts only if it ends as a sentence.
    """
    lines = [line for line in map(_plain, spoken(text).splitlines()) if line]
    rules: list[str] = []
    dropped: Counter[str] = Counter()
    for position, line in enumerate(lines):
        cut = not finished and position == len(lines) - 1 and line[-1] not in ".!"
        reason = "cut off" if cut else _fault(line, session)
        if reason is None and line in rules:
            reason = "repeated"
        if reason is None:
            rules.append(line)
        else:
            dropped[reason] += 1
    return rules, dropped


def _plain(line: str) -> str:
    bare = _PREFIX.sub("", line.replace("**", "").replace("`", ""))
    bare = " ".join(bare.split())
    quoted = _QUOTED.fullmatch(bare)
    return quoted.group(1) if quoted else bare


def _fault(line: str, session: Session) -> str | None:
    words = line.split()
    if len(words) > MAX_WORDS:
        return "overlong"
    if line.endswith("?"):
        return "question"
    if len(words) < MIN_WORDS or line.endswith((":", ",", ";")) or not line[0].isalpha():
        return "no sentence"
    if _NUMBERS.search(line):
        return "product number"
    if _TALK.search(line):
        return "about the conversation"
    if any(_quotes(line, title) for title in session.titles):
        return "quoted title"
    return None


def _quotes(line: str, title: str) -> bool:
    """A title of one word is an ordinary word, so it cannot be quoted."""
    words = re.findall(r"\w+", title.casefold())
    if len(words) < 2:
        return False
    said = " ".join(re.findall(r"\w+", line.casefold()))
    length = min(len(words), QUOTE_WORDS)
    runs = (" ".join(words[start : start + length]) for start in range(len(words) - length + 1))
    return any(f" {run} " in f" {said} " for run in runs)
