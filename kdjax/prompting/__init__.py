"""Session + knowledge → prompt; bundles ↔ answer text."""

from kdjax.prompting.answers import ANSWER_MARKER, ParsedAnswer, answer_text, parse_answer
from kdjax.prompting.neighbours import Neighbours
from kdjax.prompting.products import FIELDS, ProductForm, product_list
from kdjax.prompting.prompts import (
    INSTRUCTION,
    Demonstration,
    Example,
    check_lengths,
    messages,
    prompt_example,
    training_example,
)

__all__ = [
    "ANSWER_MARKER",
    "FIELDS",
    "INSTRUCTION",
    "Demonstration",
    "Example",
    "Neighbours",
    "ParsedAnswer",
    "ProductForm",
    "answer_text",
    "check_lengths",
    "messages",
    "parse_answer",
    "product_list",
    "prompt_example",
    "training_example",
]
