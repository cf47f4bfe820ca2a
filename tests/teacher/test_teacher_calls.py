import dataclasses
import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdjax.errors import InputError
from kdjax.teacher.calls import Answer, Call, call_fields, call_key, canonical_json, make_plan, make_request

IDENTITY = {"kind": "hf", "model": "abc", "dtype": "float32"}
CALL = Call((("system", "be brief"), ("user", "hello")), max_new_tokens=8, temperature=0.5, top_k_logprobs=2, seed=3)


def test_the_key_is_the_hash_of_the_canonical_json():
    prompt = hashlib.sha256(b"[1,2]").hexdigest()
    text = (
        f'{{"fields":{{"max_new_tokens":8,"prompt_length":2,"prompt_sha256":"{prompt}","seed":3,"temperature":0.5,"top_k_logprobs":2}},'
        '"identity":{"dtype":"float32","kind":"hf","model":"abc"}}'
    )
    assert call_key(IDENTITY, [1, 2], CALL) == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("change", [{"max_new_tokens": 9}, {"temperature": 0.6}, {"top_k_logprobs": 3}, {"seed": 4}])
def test_every_setting_changes_the_key(change):
    assert call_key(IDENTITY, [1, 2], dataclasses.replace(CALL, **change)) != call_key(IDENTITY, [1, 2], CALL)


@pytest.mark.parametrize("change", [{"kind": "http"}, {"model": "abd"}, {"dtype": "bfloat16"}])
def test_every_part_of_the_identity_changes_the_key(change):
    assert call_key(IDENTITY | change, [1, 2], CALL) != call_key(IDENTITY, [1, 2], CALL)


@pytest.mark.parametrize("prompt", [[1, 2, 3], [1, 3], [2, 1], [12], []])
def test_every_prompt_has_its_own_key(prompt):
    assert call_key(IDENTITY, prompt, CALL) != call_key(IDENTITY, [1, 2], CALL)


def test_what_cannot_change_the_answer_is_not_in_the_key():
    greedy = dataclasses.replace(CALL, temperature=0)
    assert call_fields([1], greedy) == call_fields([1], dataclasses.replace(greedy, seed=9, temperature=0.0))
    assert call_key(dict(reversed(IDENTITY.items())), (1, 2), CALL) == call_key(IDENTITY, [1, 2], CALL)


def test_the_prompt_is_the_rendered_conversation(tiny_tokenizer):
    request = make_request(IDENTITY, CALL, tiny_tokenizer)
    rendered = "<|system|>be brief<|end|><|user|>hello<|end|><|assistant|>"
    assert tiny_tokenizer.decode(request.prompt_ids, skip_special_tokens=False) == rendered
    assert request.prompt_ids[0] == 2 and request.prompt_ids[-1] == 4  # the special tokens, as one token each
    assert request.key == call_key(IDENTITY, request.prompt_ids, CALL)


@given(order=st.permutations(range(11)), batch_size=st.integers(1, 12))
def test_the_plan_does_not_depend_on_the_order_of_the_calls(tiny_tokenizer, order, batch_size):
    requests = [
        make_request(IDENTITY, Call((("user", "x" * (n // 3) + str(n)),), 4), tiny_tokenizer) for n in range(11)
    ]
    plan = make_plan([requests[n] for n in order], batch_size)
    assert plan == make_plan(requests, batch_size)
    assert {len(batch) for batch in plan[:-1]} <= {batch_size} and 1 <= len(plan[-1]) <= batch_size
    assert sorted(request.key for batch in plan for request in batch) == sorted(request.key for request in requests)
    lengths = [len(request.prompt_ids) for batch in plan for request in batch]
    assert lengths == sorted(lengths, reverse=True)


@pytest.mark.parametrize("n, k", [(0, 0), (3, 0), (3, 2)])
def test_an_answer_survives_its_row_bit_for_bit(n, k):
    random = np.random.default_rng(0)
    answer = Answer(
        key="a" * 64,
        fields=call_fields([1], dataclasses.replace(CALL, top_k_logprobs=k)),
        text="é\n✓",
        finish_reason="stop",
        prompt_tokens=1,
        completion_tokens=n,
        prompt_ids=np.array([1], np.int32),
        token_ids=random.integers(0, 2**31, n, np.int32),
        target_logprobs=random.normal(size=n).astype(np.float32),
        logsumexp=random.normal(size=n).astype(np.float32),
        top_ids=random.integers(0, 9, (n, k), np.int32),
        top_logprobs=random.normal(size=(n, k)).astype(np.float32),
    )
    back = Answer.from_row(answer.to_row())
    for name, value in vars(answer).items():
        found = getattr(back, name)
        if isinstance(value, np.ndarray):
            assert found.dtype == value.dtype and found.shape == value.shape and found.tobytes() == value.tobytes()
        else:
            assert found == value


def test_a_row_without_counts_has_those_of_its_token_ids():
    row = {"key": "a", "fields": canonical_json(call_fields([1, 2], dataclasses.replace(CALL, top_k_logprobs=0)))}
    row |= {"text": "hi", "finish_reason": "stop", "prompt_ids": [1, 2], "token_ids": [3]}
    answer = Answer.from_row(row | {"target_logprobs": [0], "logsumexp": [0], "top_ids": [], "top_logprobs": []})
    assert (answer.prompt_tokens, answer.completion_tokens) == (2, 1)


def test_without_a_tokenizer_the_messages_stand_for_the_prompt():
    request = make_request({"kind": "http", "model": "m"}, CALL, None)
    assert request.prompt_ids == () and request.fields["messages"] == CALL.messages()
    text = (
        '{"fields":{"max_new_tokens":8,"messages":[{"content":"be brief","role":"system"},'
        '{"content":"hello","role":"user"}],"seed":3,"temperature":0.5,"top_k_logprobs":2},'
        '"identity":{"kind":"http","model":"m"}}'
    )
    assert request.key == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    "broken", [{"conversation": ()}, {"conversation": (("robot", "hi"),)}, {"max_new_tokens": 0}, {"temperature": -1.0}]
)
def test_a_call_that_cannot_be_asked_is_refused(broken):
    with pytest.raises(InputError):
        dataclasses.replace(CALL, **broken)


def test_canonical_json_refuses_what_has_no_spelling():
    with pytest.raises(ValueError):
        canonical_json({"temperature": float("nan")})
