"""Session + knowledge → conversation → prompt and completion, as text and as token ids."""

from dataclasses import dataclass

from kdjax.data import Session
from kdjax.errors import InputError
from kdjax.prompting.answers import ANSWER_MARKER, answer_text
from kdjax.prompting.products import product_list
from kdjax.sources import Tokenizer

INSTRUCTION = (
    "Group the products that belong together, as alternatives or complements bought with one intent, into bundles of two or more. "
    "Answer with product numbers, like [[1,3],[2,4]]."
)


@dataclass(frozen=True)
class Example:
    """One prompt and, for training, its completion, as the student reads them.

    `prompt` and `completion` are the exact texts, `prompt_ids` and `completion_ids` their tokens; a completion ends with
    the end-of-turn token, which is part of the ids and of the text.
    """

    domain: str
    session_id: str
    prompt: str
    prompt_ids: tuple[int, ...]
    completion: str = ""
    completion_ids: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)


def messages(session: Session, knowledge: str = "") -> list[dict[str, str]]:
    """The conversation that asks for a session's bundles. All sessions of a domain share its beginning, up to the products."""
    system = INSTRUCTION + (f"\n{knowledge}" if knowledge else "")
    return [{"role": "system", "content": system}, {"role": "user", "content": product_list(session)}]


def prompt_example(tokenizer: Tokenizer, domain: str, session: Session, knowledge: str = "") -> Example:
    """The prompt alone, for generation.

    Raises:
        InputError: a title or the knowledge holds the text of a control token, which would end the turn; names the session.
    """
    conversation = messages(session, knowledge)
    _check_text(tokenizer, "".join(message["content"] for message in conversation), f"{domain}/{session.id}")
    prompt = tokenizer.render(conversation)
    return Example(domain, session.id, prompt, tuple(tokenizer.encode(prompt)))


def training_example(
    tokenizer: Tokenizer, domain: str, session: Session, knowledge: str = "", thought: str = ""
) -> Example:
    """The prompt with its target: the true bundles, after the teacher's thought where one is given.

    Raises:
        InputError: the tokenizer merges the end of the prompt with the answer, so that the mask would be off, or a text
            holds a control token; names the session.
    """
    _check_text(tokenizer, thought, f"{domain}/{session.id}")
    asked = prompt_example(tokenizer, domain, session, knowledge)
    answer = answer_text(session.bundles)
    completion = (f"{thought}\n{ANSWER_MARKER} {answer}" if thought else answer) + tokenizer.inner.id_to_token(
        tokenizer.eos_id
    )
    joint = tokenizer.encode(asked.prompt + completion)
    if tuple(joint[: len(asked.prompt_ids)]) != asked.prompt_ids:
        raise InputError(
            f"{domain}/{session.id}: the prompt's tokens are not a prefix of prompt + answer; the chat template must end in a clean boundary"
        )
    return Example(
        domain, session.id, asked.prompt, asked.prompt_ids, completion, tuple(joint[len(asked.prompt_ids) :])
    )


def _check_text(tokenizer: Tokenizer, text: str, where: str) -> None:
    for token in tokenizer.control_tokens:
        if token in text:
            raise InputError(
                f"{where}: a product's title or the knowledge holds {token!r}, a control token of the student's tokenizer; "
                "write it otherwise"
            )


def check_lengths(examples: list[Example], max_length: int, knowledge: int = 0) -> None:
    """Every example must fit `max_length` tokens (prompt + target): nothing is cut in silence.

    `knowledge` is the most tokens that are still to be added to each.

    Raises:
        InputError: naming the longest offender and how many there are.
    """
    too_long = [example for example in examples if len(example) + knowledge > max_length]
    if too_long:
        worst = max(too_long, key=len)
        more = f" and up to {knowledge} of knowledge" if knowledge else ""
        raise InputError(
            f"{len(too_long)} of {len(examples)} examples exceed train.max_length={max_length} tokens; the longest is session "
            f"{worst.domain}/{worst.session_id} with {len(worst)}{more}: raise train.max_length or leave the session out of the data"
        )
