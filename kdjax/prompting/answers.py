"""Bundles ↔ answer text: `[[1,3],[2,5,6]]`, 1-based product numbers, compact, ascending."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from kdjax.prompting.thinking import spoken

ANSWER_MARKER = "Bundles:"  # a thought may come before it
BUNDLE = r"\[\s*[1-9][0-9]*(\s*,\s*[1-9][0-9]*)*\s*\]"
LIST_OF_BUNDLES = re.compile(rf"\s*\[\s*{BUNDLE}(\s*,\s*{BUNDLE})*\s*\]\s*")
# Quantifiers are possessive (`++`, `*+`): a model may write anything, and no text may take quadratic time.
RANGE = r"(?:[-–—]|to\b|through\b|,\s*+(?:\.{3}|…)\s*+,?)"  # 1-4, 1 to 4 or 1, ..., 4
NUMBER_OR_RANGE = re.compile(rf"(?<![\d.])(\d++)(?:\s*+{RANGE}\s*+(\d++))?(?!\.+\d)")
INNERMOST_LIST = re.compile(r"\[([^\[\]]*)\]")
WHOLE_FLOATS = re.compile(r"\s*+\d++\.0(?:\s*+,\s*+\d++\.0)*+\s*+")
RANGES = re.compile(rf"\s*+\d++\s*+{RANGE}\s*+\d++(?:\s*+,\s*+\d++\s*+{RANGE}\s*+\d++)++\s*+")
AND = r"(?:,\s*+and\b|[,&]|and\b)"
GROUP = re.compile(rf"""[({{"']\s*+(\d++(?:\s*+{AND}\s*+\d++)*+)\s*+,?\s*+[)}}"']""")  # (1, 2), {1 and 2} or "1, 2"
WORD = r"(?:bundle|group|set)\b"
LABEL = rf"\s*+(?:[-+*•–]\s++|\d++[.)]\s++)?(?:\**{WORD}\s*+#?\w*+[^:\d]*+:[\s*]*+)?"
NUMBERS = r"(?:products?\s++|items?\s++)?#?\d++(?:\s*+(?:,\s*+and\b|[,&+–-]|and\b|to\b)\s*+#?\d++)++"
LABELLED_LINE = re.compile(rf"(?P<label>{LABEL})(?P<numbers>{NUMBERS})(?!\s*+[\w,]|\.\d)", re.IGNORECASE)
BARE_NUMBERS = re.compile(rf"\s*+{NUMBERS}\s*+\.?\s*+", re.IGNORECASE)
# Where a line has several labels: 1, 2; Bundle 2: 3, 4
NEXT_LABEL = re.compile(rf"(?<=[\d)\]])(?:\s*+[;,.|])?\s++(?=\**{WORD}\s*+#?\d++[^:\d]{{0,80}}+:)", re.IGNORECASE)
LISTED_LABEL = re.compile(rf"{WORD}\s*+$", re.IGNORECASE)  # before [1] in "Bundle [1]: [1, 2]"


def answer_text(bundles: Sequence[tuple[int, ...]]) -> str:
    """Write bundles (0-based positions) in the one canonical spelling, e.g. `((0, 2), (1, 4))` → `[[1,3],[2,5]]`.

    Items ascend inside a bundle and bundles ascend lexicographically: one spelling per answer leaves the student no
    arbitrary order to guess.
    """
    ordered = sorted(tuple(sorted(bundle)) for bundle in bundles)
    return "[" + ",".join("[" + ",".join(str(item + 1) for item in bundle) + "]" for bundle in ordered) + "]"


@dataclass(frozen=True)
class ParsedAnswer:
    """What a model's text names.

    `bundles`: 1-based product numbers of each named bundle, only those inside 1..n_items, in answer order, repeats kept;
    a bundle left without an item is dropped. `valid`: the text is exactly a list of lists of in-range, distinct numbers,
    each of two or more. `out_of_range`: how many numbers were left out (hallucinated products).
    """

    bundles: tuple[tuple[int, ...], ...]
    valid: bool
    out_of_range: int


def parse_answer(text: str, n_items: int) -> ParsedAnswer:
    """Read the bundles that `text` names among products 1..n_items. Never raises: a model may write anything.

    The answer is what follows the last "Bundles:" that a bundle follows, or the whole text, without the model's thinking.
    It is read in the first of `FORMS` that it has. In a bundle any whole number is a product ('product10' reads as 10, unlike the last-character
    rule of the predecessor's code), and 2-4 is a range.
    """
    before, *after = spoken(text).split(ANSWER_MARKER)
    bundles, out_of_range = [], 0
    for group in _groups(before, after):
        numbers, outside = _numbers(group, n_items)
        out_of_range += outside
        if numbers:
            bundles.append(numbers)
    exact = LIST_OF_BUNDLES.fullmatch([before, *after][-1]) is not None and out_of_range == 0
    valid = exact and all(len(bundle) >= 2 and len(set(bundle)) == len(bundle) for bundle in bundles)
    return ParsedAnswer(tuple(bundles), valid, out_of_range)


def _groups(before: str, after: Sequence[str]) -> list[str]:
    """The text of each bundle. `before` is what comes before the first marker, `after` what follows each."""
    for answer in reversed(after) if after else [before]:
        for form in FORMS:
            if found := form(answer):
                return found
    # "[[1,2]]. These Bundles: make coffee" has its answer before the marker; a text cut off after it has none.
    return _nested_lists(before) if after and after[-1].strip() else []


def _nested_lists(answer: str) -> list[str]:
    """`[[1, 2], [3, 4]]`: lists in a list. Others are remarks: `[[1, 2]] (I left out [3])`."""
    return [part for text, nested in _lists(answer) if nested for part in _parts(text)]


def _loose_lists(answer: str) -> list[str]:
    """`[1, 2], [3, 4]`, or one list of nothing but ranges, `[1-2, 3-4]`."""
    lists = [text for text, _ in _lists(answer)]
    if len(lists) == 1 and RANGES.fullmatch(lists[0]):
        return [match[0] for match in NUMBER_OR_RANGE.finditer(lists[0])]
    return [part for text in lists for part in _parts(text)]


def _loose_groups(answer: str) -> list[str]:
    """`(1, 2), (3 and 4)` or `{1, 2}`"""
    return [group for group in GROUP.findall(answer) if not group.isdecimal()]


def _labelled_lines(answer: str) -> list[str]:
    """`Bundle 1: 1, 2` or `- 1 and 2`, a bundle per line or label."""
    lines = [LABELLED_LINE.match(part) for line in answer.splitlines() for part in NEXT_LABEL.split(line)]
    return [line["numbers"] for line in lines if line and line["label"].strip()]


def _bare_lines(answer: str) -> list[str]:
    """Two or more lines of nothing but numbers, or one with semicolons: `1, 2; 3, 4`."""
    lines = [line for line in re.split(r"[;\n]", answer) if line.strip()]
    return lines if len(lines) > 1 and all(map(BARE_NUMBERS.fullmatch, lines)) else []


FORMS = (_nested_lists, _loose_lists, _loose_groups, _labelled_lines, _bare_lines)


def _lists(answer: str) -> list[tuple[str, bool]]:
    """The innermost lists that hold a number or nothing at all, and whether each is in an outer list."""
    found, depth, end, nested = [], 0, 0, False
    for match in INNERMOST_LIST.finditer(answer):
        between = answer[end : match.start()]
        depth = max(0, depth + between.count("[") - between.count("]"))
        # An outer list may be closed too early: [[1, 2]], [3, 4]]
        nested = depth > 0 or (nested and not between.strip("[], \t\r\n"))
        inside = match[1].replace(".0", "") if WHOLE_FLOATS.fullmatch(match[1]) else match[1]
        label = answer[match.end() : match.end() + 1] == ":" and LISTED_LABEL.search(
            answer, match.start() - 8, match.start()
        )
        if not label and (NUMBER_OR_RANGE.search(inside) or not inside.strip()):
            found.append((inside, nested))
        end = match.end()
    return found


def _parts(text: str) -> list[str]:
    """The bundles of an innermost list: one, unless it is a list of tuples or sets, as in `[(1, 2), (3, 4)]`."""
    groups = GROUP.findall(text)
    return [text] if all(map(str.isdecimal, groups)) else groups


def _numbers(group: str, n_items: int) -> tuple[tuple[int, ...], int]:
    """The products that a group names, and how many of its numbers are those of none."""
    inside: list[int] = []
    outside = 0
    for first, last in NUMBER_OR_RANGE.findall(group):
        ends = [int(digits[:10]) for digits in (first, last) if digits]  # ten digits are out of range already
        low, high = ends[0], ends[-1]
        named = range(max(low, 1), min(high, n_items) + 1) if low < high else ends  # 3-1 is no range
        inside += [number for number in named if 1 <= number <= n_items]
        outside += sum(not 1 <= number <= n_items for number in ends)
    return tuple(inside), outside
