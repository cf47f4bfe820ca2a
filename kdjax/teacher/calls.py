"""A call to a teacher, its answer, and the key under which the answer is kept."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kdjax.errors import InputError
from kdjax.sources import Tokenizer

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Call:
    """One question to a teacher: only what can change the answer.

    `conversation` is ((role, content), …). `temperature` 0 is greedy decoding; `seed` tells apart several samples of
    one prompt and plays no part at temperature 0. `top_k_logprobs` is how many alternatives to keep per generated
    token.
    """

    conversation: tuple[tuple[str, str], ...]
    max_new_tokens: int
    temperature: float = 0.0
    top_k_logprobs: int = 0
    seed: int = 0

    def __post_init__(self):
        if not self.conversation or any(role not in ROLES for role, _ in self.conversation):
            raise InputError(f"conversation: give (role, content) pairs with roles out of {', '.join(ROLES)}")
        if self.max_new_tokens < 1 or self.temperature < 0 or self.top_k_logprobs < 0:
            raise InputError(
                f"max_new_tokens must be at least 1, temperature and top_k_logprobs at least 0; got {self}"
            )

    def messages(self) -> list[dict[str, str]]:
        """The conversation in the form that chat templates and servers read."""
        return [{"role": role, "content": content} for role, content in self.conversation]


@dataclass(frozen=True)
class Request:
    """A call as one teacher sees it: its prompt token ids, the fields that decide the answer, and their key.

    A teacher that tokenizes by itself has no token ids: `prompt_ids` is empty, and `fields` holds the messages.
    """

    call: Call
    prompt_ids: tuple[int, ...]
    fields: Mapping
    key: str


@dataclass(frozen=True, eq=False)
class Answer:
    """What a teacher said.

    n = generated tokens, the one that ended the turn included; k = the call's `top_k_logprobs`. The log-probabilities
    are of the model's own distribution, before temperature: logit − logsumexp, in nats. Where only the teacher knows
    its tokens, all arrays are empty, and the two counts are what it says (0 where it says nothing).
    """

    key: str
    fields: Mapping
    text: str  # without thinking, without the end-of-turn token
    finish_reason: str  # "stop" | "length" (cut off); on the disk it may be an endpoint's own word
    prompt_tokens: int
    completion_tokens: int
    prompt_ids: np.ndarray  # int32 [prompt length]
    token_ids: np.ndarray  # int32 [n]
    target_logprobs: np.ndarray  # float32 [n]
    logsumexp: np.ndarray  # float32 [n], of the logits
    top_ids: np.ndarray  # int32 [n, k], most probable first
    top_logprobs: np.ndarray  # float32 [n, k]

    @classmethod
    def from_row(cls, row: Mapping) -> "Answer":
        """Read an answer back from a journal or Arrow row. Raises KeyError, TypeError or ValueError if it is none."""
        fields = json.loads(row["fields"])
        shape = (len(row["token_ids"]), fields["top_k_logprobs"])
        return cls(
            key=row["key"],
            fields=fields,
            text=row["text"],
            finish_reason=row["finish_reason"],
            prompt_tokens=row.get("prompt_tokens", len(row["prompt_ids"])),
            completion_tokens=row.get("completion_tokens", len(row["token_ids"])),
            prompt_ids=np.array(row["prompt_ids"], np.int32),
            token_ids=np.array(row["token_ids"], np.int32),
            target_logprobs=np.array(row["target_logprobs"], np.float32),
            logsumexp=np.array(row["logsumexp"], np.float32),
            top_ids=np.array(row["top_ids"], np.int32).reshape(shape),
            top_logprobs=np.array(row["top_logprobs"], np.float32).reshape(shape),
        )

    def to_row(self) -> dict:
        """The answer as JSON values; `from_row` gives it back bit for bit."""
        row = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(self).items()}
        return row | {"fields": canonical_json(self.fields)}


def canonical_json(value) -> str:
    """One spelling per value: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def sha256_json(value) -> str:
    """sha256 of the canonical JSON of `value`, as hex."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def call_fields(prompt_ids: Sequence[int] | None, call: Call) -> dict:
    """The fields that decide an answer. None for `prompt_ids`: the teacher tokenizes by itself, from the messages."""
    prompt: dict[str, object]
    if prompt_ids is None:
        prompt = {"messages": call.messages()}
    else:
        prompt = {"prompt_sha256": sha256_json(list(prompt_ids)), "prompt_length": len(prompt_ids)}
    return prompt | {
        "max_new_tokens": int(call.max_new_tokens),
        "temperature": float(call.temperature),
        "top_k_logprobs": int(call.top_k_logprobs),
        "seed": int(call.seed) if call.temperature else 0,
    }


def call_key(identity: Mapping, prompt_ids: Sequence[int] | None, call: Call) -> str:
    """sha256 (hex) of who is asked, what and how. `identity` names the teacher: kind, model or weights digest, dtype."""
    return key_of_fields(identity, canonical_json(call_fields(prompt_ids, call)))


def key_of_fields(identity: Mapping, fields: str) -> str:
    """`call_key`, from the canonical JSON of the fields, as it is kept beside an answer."""
    return hashlib.sha256(f'{{"fields":{fields},"identity":{canonical_json(identity)}}}'.encode()).hexdigest()


def make_request(identity: Mapping, call: Call, tokenizer: Tokenizer | None, thinking: bool = False) -> Request:
    """Render and tokenize a call; the key is over the token ids, so a changed template or tokenizer is another call.

    Without a tokenizer, which only the teacher has, the key is over the messages, and over `thinking` where it is on
    (answers that were recorded before it could be switched keep their keys).
    """
    ids: tuple[int, ...] = ()
    if tokenizer is None:
        fields = call_fields(None, call) | ({"thinking": True} if thinking else {})
    else:
        ids = tuple(tokenizer.encode(tokenizer.render(call.messages(), thinking=thinking)))
        fields = call_fields(ids, call)
    return Request(call, ids, fields, key_of_fields(identity, canonical_json(fields)))


def make_plan(requests: Sequence[Request], batch_size: int) -> list[list[Request]]:
    """Cut requests into the batches of a pass: a function of the set of requests alone, not of their order.

    Long prompts come first, so that a batch is evenly long and one too large for memory fails at once; equals go by
    key.
    """
    ordered = sorted(requests, key=lambda request: (-len(request.prompt_ids), request.key))
    return [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]
