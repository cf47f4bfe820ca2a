"""Session + knowledge → prompt; bundles ↔ answer text."""

from kdjax.prompting.answers import ANSWER_MARKER, ParsedAnswer, answer_text, parse_answer
from kdjax.prompting.products import FIELDS, ProductForm, product_list
from kdjax.prompting.prompts import INSTRUCTION, Example, check_lengths, messages, prompt_example, training_example

__all__ = [
    "ANSWER_MARKER",
    "FIELDS",
    "INSTRUCTION",
    "Example",
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
