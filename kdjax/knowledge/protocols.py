"""What this room takes as arguments, so that it knows no teacher, no tokenizer and no console."""

from collections.abc import Callable, Sequence

from kdjax.teacher import Answer, Call

Ask = Callable[[Sequence[Call]], list[Answer]]  # a teacher's `ask`: one answer per call, in order
CountTokens = Callable[[str], int]  # the student's tokenizer: how many tokens a text is, without special tokens
Log = Callable[[str], None]  # takes one line for the console
