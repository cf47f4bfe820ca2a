"""What this room takes as arguments, so that it knows no teacher, no tokenizer and no console."""

from collections.abc import Callable, Sequence

from kdjax.teacher import Answer, Call, NoAnswer

# A teacher's `ask_each`: one answer per call, in order, or why there is none.
Ask = Callable[[Sequence[Call]], Sequence[Answer | NoAnswer]]
CountTokens = Callable[[str], int]  # the student's tokenizer: how many tokens a text is, without special tokens
Log = Callable[[str], None]  # takes one line for the console
