"""Bundles ↔ answer text: `[[1,3],[2,5,6]]`, 1-based product numbers, compact, ascending."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from kdjax.prompting.thinking import spoken

ANSWER_MARKER = "Bundles:"  # a thought may stand before the answer; the last marker begins it
WHOLE_NUMBER = re.compile(r"(?<![\d.])\d++(?!\.+\d)")
BUNDLE = r"\[\s*[1-9][0-9]*(\s*,\s*[1-9][0-9]*)*\s*\]"
LIST_OF_BUNDLES = re.compile(rf"\s*\[\s*{BUNDLE}(\s*,\s*{BUNDLE})*\s*\]\s*")


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

    The answer is what follows the last "Bundles:", or the whole text, without the model's thinking. Every innermost `[...]` group of whole numbers is a
    bundle ('product10' reads as 10, unlike the last-character rule of the predecessor's code).
    """
    answer = spoken(text).rsplit(ANSWER_MARKER, 1)[-1]
    bundles, out_of_range = [], 0
    for group in re.findall(r"\[([^\[\]]*)\]", answer):
        numbers = [int(digits[:10]) for digits in WHOLE_NUMBER.findall(group)]  # ten digits are out of range already
        inside = tuple(number for number in numbers if 1 <= number <= n_items)
        out_of_range += len(numbers) - len(inside)
        if inside:
            bundles.append(inside)
    exact = LIST_OF_BUNDLES.fullmatch(answer) is not None and out_of_range == 0
    valid = exact and all(len(bundle) >= 2 and len(set(bundle)) == len(bundle) for bundle in bundles)
    return ParsedAnswer(tuple(bundles), valid, out_of_range)
