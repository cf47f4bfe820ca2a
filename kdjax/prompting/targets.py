"""What a student is trained to write: the text of its turn, and the tokens of that text as generation produces them."""

from collections.abc import Sequence

from kdjax.errors import InputError
from kdjax.sources import Tokenizer

# Texts that a tokenizer seldom merges with what follows them.
NEUTRAL = ("\n", "x", ".")


def target_text(tokenizer: Tokenizer, answer: str) -> str:
    """`answer` with the white space that the chat template writes around an assistant's text."""
    before, after = tokenizer.answer_padding
    return before + answer + after


def target_ids(tokenizer: Tokenizer, prompt: str, prompt_ids: Sequence[int], target: str) -> tuple[int, ...]:
    """The tokens that follow `prompt_ids` where a model writes `target` and ends its turn.

    These are the tokens of the joint text wherever it splits at the end of the prompt. It does not where the two merge
    ("[/INST]" + "[[1,2]]" has the token "]["), or where a tokenizer of the SentencePiece kind puts a space of its own
    after a special token. There the target is tokenized after a neutral text instead.

    Raises:
        InputError: the target merges with every text before it.
    """
    for before, known in ((prompt, list(prompt_ids)), *((text, tokenizer.encode(text)) for text in NEUTRAL)):
        joint = tokenizer.encode(before + target)
        ids = joint[len(known) :]
        if joint[: len(known)] == known and not _adds_space(tokenizer, known[-1], ids, target):
            return (*ids, tokenizer.eos_id)
    raise InputError(f"{tokenizer.where}: the tokenizer merges {target!r} with any text before it")


def _adds_space(tokenizer: Tokenizer, last: int, ids: Sequence[int], target: str) -> bool:
    """Whether `ids` after the token `last` read as `target` with more space before it."""
    known = tokenizer.decode([last], skip_special_tokens=False)
    read = tokenizer.decode([last, *ids], skip_special_tokens=False)[len(known) :]
    return _indent(read) > _indent(target)


def _indent(text: str) -> int:
    return len(text) - len(text.lstrip())
