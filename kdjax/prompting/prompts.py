"""Session + knowledge → conversation → prompt and completion, as text and as token ids."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kdjax.data import Session
from kdjax.errors import InputError
from kdjax.prompting.answers import ANSWER_MARKER, answer_text
from kdjax.prompting.products import PLAIN, ProductForm, Span, product_list, product_spans
from kdjax.prompting.targets import target_ids, target_text
from kdjax.sources import Tokenizer

INSTRUCTION = (
    "Group the products that belong together, as alternatives or complements bought with one intent, into bundles of two or more. "
    "Answer with product numbers, like [[1,3],[2,4]]."
)


@dataclass(frozen=True)
class Demonstration:
    """A training session that is shown with its true bundles, and with what a teacher thought about it, if it did."""

    session: Session
    thought: str = ""


@dataclass(frozen=True)
class Example:
    """One prompt and, for training, its completion, as the student reads them.

    `prompt` and `completion` are the exact texts, `prompt_ids` and `completion_ids` their tokens; a completion ends with
    the end-of-turn token, which is part of the ids and of the text. `products` are the (first, end) of the tokens of each
    product's fields in the prompt, and `bundles` the true bundles, which the prompt does not tell. `demonstrations` are the ids
    of the sessions that the prompt shows.
    """

    domain: str
    session_id: str
    prompt: str
    prompt_ids: tuple[int, ...]
    completion: str = ""
    completion_ids: tuple[int, ...] = ()
    products: tuple[tuple[Span, ...], ...] = ()
    bundles: tuple[tuple[int, ...], ...] = ()
    demonstrations: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)


def messages(
    session: Session, knowledge: str = "", form: ProductForm = PLAIN, demonstrations: Sequence[Demonstration] = ()
) -> list[dict[str, str]]:
    """The conversation that asks for a session's bundles, after a turn for each demonstration. All sessions of a domain
    share the instruction and the knowledge."""
    turns = [{"role": "system", "content": INSTRUCTION + (f"\n{knowledge}" if knowledge else "")}]
    for shown in demonstrations:
        thought = f"\n{shown.thought}" if shown.thought else ""
        turns.append({"role": "user", "content": product_list(shown.session, form) + thought})
        turns.append({"role": "assistant", "content": answer_text(shown.session.bundles)})
    return [*turns, {"role": "user", "content": product_list(session, form)}]


def prompt_example(
    tokenizer: Tokenizer,
    domain: str,
    session: Session,
    knowledge: str = "",
    form: ProductForm = PLAIN,
    demonstrations: Sequence[Demonstration] = (),
) -> Example:
    """The prompt alone, for generation."""
    prompt = tokenizer.render(messages(session, knowledge, form, demonstrations))
    encoded = tokenizer.inner.encode(prompt, add_special_tokens=False)
    return Example(
        domain,
        session.id,
        prompt,
        tuple(encoded.ids),
        products=product_spans(tokenizer, prompt, encoded.offsets, session, form),
        bundles=session.bundles,
        demonstrations=tuple(shown.session.id for shown in demonstrations),
    )


def training_example(
    tokenizer: Tokenizer,
    domain: str,
    session: Session,
    knowledge: str = "",
    thought: str = "",
    form: ProductForm = PLAIN,
    demonstrations: Sequence[Demonstration] = (),
) -> Example:
    """The prompt with its target: the true bundles, after the teacher's thought where one is given.

    Raises:
        InputError: the tokenizer merges the target with any text before it; names the session.
    """
    asked = prompt_example(tokenizer, domain, session, knowledge, form, demonstrations)
    answer = answer_text(session.bundles)
    said = f"{tokenizer.escape(thought)}\n{ANSWER_MARKER} {answer}" if thought else answer
    target = target_text(tokenizer, said)
    try:
        ids = target_ids(tokenizer, asked.prompt, asked.prompt_ids, target)
    except InputError as error:
        raise InputError(f"{domain}/{session.id}: {error}") from error
    return replace(asked, completion=target + tokenizer.eos_token, completion_ids=ids)


def check_lengths(examples: Sequence[Example], max_length: int, more: int = 0) -> None:
    """Every example must fit `max_length` tokens (prompt + target): nothing is cut in silence.

    `more` tokens may still be added to each.

    Raises:
        InputError: naming the longest offender and how many there are.
    """
    too_long = [example for example in examples if len(example) + more > max_length]
    if too_long:
        worst = max(too_long, key=len)
        verb, to_come = ("may exceed", f" and up to {more} of knowledge to come") if more else ("exceed", "")
        raise InputError(
            f"{len(too_long)} of {len(examples)} examples {verb} train.max_length={max_length} tokens; the longest is session "
            f"{worst.domain}/{worst.session_id} with {len(worst)}{to_come}: raise train.max_length or leave the session out of the data"
        )
