"""Replies of an endpoint that are no answers: each is named in an error, and never becomes an answer."""

import pytest
from http_stand_in import Reply, Server
from listed import each

from kdjax.errors import InputError
from kdjax.teacher import Call, TeacherCache, open_teacher

CALLS = [Call((("user", prompt),), 64) for prompt in ("first", "second")]


def said(content, finish="stop", usage=None, **more) -> Reply:
    """A reply with this content; `more` stands in its message, but for `error`, which is the reply's own."""
    error = {"error": more.pop("error")} if "error" in more else {}
    choice = {"message": {"role": "assistant", "content": content, **more}, "finish_reason": finish}
    return Reply(body={"choices": [choice], "usage": usage} | error)


def said_with_error(content, error) -> Reply:
    """A reply whose message has an error."""
    message = {"content": content, "error": error}
    return Reply(body={"choices": [{"message": message, "finish_reason": "stop"}]})


def absent(name) -> Reply:
    """A reply whose message lacks a field."""
    message = {"role": "assistant", "content": "hi"}
    del message[name]
    return Reply(body={"choices": [{"message": message, "finish_reason": "stop"}]})


SPENT = "raise knowledge.max_new_tokens"
# what is wrong: (the reply, what the error says)
REPLIES = {
    "thinking that used up the tokens, elsewhere": (
        said("", "length", reasoning_content="Okay"),
        SPENT,
        "reasoning_content",
    ),
    "the same as null": (said(None, "length", reasoning="Okay"), SPENT),
    "thinking that never ended": (said("<think>Okay, the user", "length"), "thinking never ended", SPENT),
    "thinking that never ended and stopped": (said("<think>Okay.", "stop"), "thinking never ended"),
    "thinking in brackets": (said("[THINK]Okay", "length"), "thinking never ended"),
    "thinking in a channel": (said("<|channel|>analysis<|message|>Okay", "length"), "thinking never ended"),
    "thinking and nothing after it": (said("<think>Okay</think>\n\n"), "holds no text"),
    "thinking in parts": (said([{"type": "thinking", "thinking": "Okay"}], "length"), "no text"),
    "nothing": (said(""), "holds no text (finish_reason 'stop')"),
    "blanks": (said(" \n\t "), "holds no text"),
    "null": (said(None), "holds no text (finish_reason 'stop')"),
    "no content at all": (absent("content"), "holds no text"),
    "an end-of-turn token alone": (said("<|im_end|>"), "holds no text"),
    "a zero-width space": (said("\u200b"), "holds no text"),
    "half a character": (said("\ufffd"), "holds no text"),
    "a null that was printed": (said("null"), "holds no text"),
    "a None that was printed": (said("None"), "holds no text"),
    "an empty box": (said("<|begin_of_box|><|end_of_box|>"), "holds no text"),
    "parts that are null": (said([{"type": "text", "text": None}]), "holds no text"),
    "no parts": (said([]), "holds no text"),
    "thinking that was redacted": (said([{"type": "redacted_thinking", "data": "x"}]), "holds no text"),
    "an object for content": (said({"image": "hi"}), "the answer is no text (content dict"),
    "a number for its end": (said("hi", 3), "finish_reason int"),
    "a failure with half a text": (said("Bundle the", "error"), "failed while it answered", "'error'"),
    "a failure beside the choices": (said("Bundle the", error={"code": 502}), "failed while it answered", "502"),
    "a network error": (said("Bundle the", "network_error"), "failed while it answered"),
    "no resources left": (said("Bundle the", "insufficient_system_resource"), "failed while it answered"),
    "filtered": (said("Bundle the", "content_filter"), "filter of the endpoint"),
    "filtered, as Gemini says it": (said("", "SAFETY"), "filter of the endpoint"),
    "refused": (said(None, refusal="I will not"), "filter of the endpoint", "I will not"),
    "a tool is called": (said(None, "tool_calls", tool_calls=[{}]), "asks for a tool"),
    "a part that is no text": (said([{"type": "image_url"}]), "the answer is no text (content list"),
    "a failure in the message": (said_with_error("Bundle the", {"code": 502}), "failed while it answered", "502"),
    "a filter beside an ordinary end": (
        said("Bundle the", content_filter_results={"hate": {"filtered": True}}),
        "filter of the endpoint",
    ),
    "a refusal with a text": (said("I will not", refusal="I will not"), "filter of the endpoint"),
    "too many requests while it answered": (said("Bundle the", "rate_limit_exceeded"), "failed while it answered"),
    "the server was preempted": (said("Bundle the", "preempted"), "failed while it answered"),
    "a policy": (said("Bundle the", "policy_violation"), "filter of the endpoint"),
    "cut off in thinking without marks": (said("analysisWe need", "length"), "thinking never ended", SPENT),
}


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr("kdjax.teacher.http_teacher.FIRST_WAIT", 0.001)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        yield server


@each("reply", REPLIES)
def test_a_reply_that_is_no_answer(reply, words, server, tmp_path):
    server.lasting["first"] = reply
    with (
        open_teacher("http", "tiny", tmp_path, url=server.url, log=lambda line: None) as teacher,
        pytest.raises(InputError) as error,
    ):
        teacher.ask(CALLS)
    for word in ("1 of 2 prompts have no answer", "'first'", "1 answers came and are kept", *words):
        assert word in str(error.value)
    cache = TeacherCache(tmp_path, {"kind": "http", "model": "tiny"})
    assert [cache[key].text for key in cache] == ["dnoces"]
