"""Session + knowledge → prompt; bundles ↔ answer text."""

from kdjax.prompting.answers import ANSWER_MARKER, ParsedAnswer, answer_text, parse_answer
from kdjax.prompting.links import NUMERALS, Target, link_targets, numeral_ids
from kdjax.prompting.products import FIELDS, ProductForm, product_list
from kdjax.prompting.prompts import INSTRUCTION, Example, check_lengths, messages, prompt_example, training_example

__all__ = [
    "ANSWER_MARKER",
    "FIELDS",
    "INSTRUCTION",
    "NUMERALS",
    "Example",
    "ParsedAnswer",
    "ProductForm",
    "Target",
    "answer_text",
    "check_lengths",
    "link_targets",
    "messages",
    "numeral_ids",
    "parse_answer",
    "product_list",
    "prompt_example",
    "training_example",
]
