"""The HTTP teacher against the faults that servers have: each prompt ends answered or accounted for."""

import json
import time
from email.utils import formatdate

import pytest
from http_calls import CALLS, ODD, PROMPTS, content, texts
from http_stand_in import Reply, answer_to
from hypothesis import given
from hypothesis import strategies as st

from kdjax.errors import InputError
from kdjax.teacher import Answer, Call, endpoint, http_teacher
from kdjax.teacher.endpoint import Endpoint, Failure, retry_after
from kdjax.teacher.http_teacher import wait_before_next

PASSING = {
    "busy": Reply(429, headers={"Retry-After": "0"}),
    "busy until a date": Reply(429, headers={"Retry-After": formatdate(0, usegmt=True)}),
    "busy until nonsense": Reply(429, headers={"Retry-After": "soon"}),
    "broken": Reply(500, b"oops"),
    "unavailable": Reply(503),
    "slow": Reply(body=answer_to(ODD), delay=0.5),
    "slow drops": Reply(body=answer_to(ODD), drip=0.05),
    "slow drops of its header": Reply(body=answer_to(ODD), headers={"X-Padding": "x" * 1000}, drip_header=0.05),
    "dropped": Reply(body=answer_to(ODD), drop=20),
    "dropped at once": Reply(body=answer_to(ODD), headers={"Content-Length": 10_000}),
    "dropped chunk": Reply(body=b"40\r\n{", headers={"Transfer-Encoding": "chunked"}),
    "no HTTP": Reply(headers={"Transfer-Encoding": "chunked"}, body=b"zz\r\n"),
    "malformed": Reply(body=b'{"choices": [{"message"'),
    "deep": Reply(body=b"[" * 200_000),
    "html": Reply(body=b"<html>busy</html>", headers={"Content-Type": "text/html"}),
    "latin-1": Reply(
        body='{"choices": "é"}'.encode("latin-1"), headers={"Content-Type": "text/plain; charset=latin-1"}
    ),
    "zipped": Reply(body=b"\x1f\x8b\x08", headers={"Content-Encoding": "gzip"}),
    "empty": Reply(204),
    "no choices": Reply(body={"error": {"message": "overloaded"}}),
    "empty choices": Reply(body={"choices": []}),
    "no message": Reply(body={"choices": [{"text": "old"}]}),
    "a list": Reply(body=[1]),
    "null": Reply(body=b"null"),
}


@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_passes_is_asked_again(opened, server, monkeypatch, fault):
    monkeypatch.setattr(endpoint, "TIMEOUT", 0.2 if "slow" in fault else 5.0)
    server.faults[ODD] += [PASSING[fault]] * 2
    with opened() as teacher:
        assert texts(teacher.ask(CALLS)) == [prompt[::-1] for prompt in PROMPTS]
    assert sorted(server.prompts()) == sorted([*PROMPTS, ODD, ODD])
    assert server.times[-1] - server.times[0] < 10  # a header in drops takes 50 s
    assert sum("attempt 2 in" in line for line in opened.said) == 1


LASTING = {  # what is said, and how often the prompt is asked
    "busy": (Reply(429), "429 Too Many Requests", 6),
    "broken": (Reply(500, b"oops\x1b[2J"), r"500 Internal Server Error: 'oops\\x1b\[2J'", 6),
    "malformed": (Reply(body=b"{"), "is no JSON: '{'", 6),
    "no choices": (Reply(body={"error": "busy"}), r"no choices\[0\].message: .*busy", 6),
    "too long": (Reply(400, {"error": {"message": "maximum context length is 64"}}), "context length is 64", 2),
    "too large": (Reply(413), "413", 1),
    "invalid": (Reply(422), "422", 2),
    "null content": (content(None), "holds no text.*null", 3),
    "content is a list": (content([{"type": "text"}]), "content list", 1),
    "a finish reason in a list": (content("hi", ["stop"]), "content str, finish_reason list", 1),
    "huge": (Reply(body=b" " * 5000), "longer than 4096 bytes", 1),
    "huge and endless": (Reply(body=b" " * 5000, headers={"Content-Length": 10**12}), "longer than 4096 bytes", 1),
}


@pytest.mark.parametrize("fault", LASTING)
def test_a_fault_that_lasts_is_accounted_for_and_the_others_are_answered(opened, server, monkeypatch, fault):
    monkeypatch.setattr(endpoint, "MAX_REPLY", 4096)
    reply, reason, attempts = LASTING[fault]
    server.lasting[ODD] = reply
    with opened() as teacher:
        with pytest.raises(InputError, match=rf"(?s)1 of 6 prompts have no answer.*'{ODD}'.*{reason}") as error:
            teacher.ask(CALLS)
        assert "5 answers came and are kept" in str(error.value) and "not asked" not in str(error.value)
    assert sorted(server.prompts()) == sorted([*PROMPTS, *[ODD] * (attempts - 1)])
    server.lasting.clear(), server.seen.clear()
    with opened() as teacher:
        assert len(teacher.cache) == 5
        assert texts(teacher.ask(CALLS)) == [prompt[::-1] for prompt in PROMPTS]
    assert server.prompts() == [ODD]
    assert not (teacher.cache.folder / "journal.jsonl").exists()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("stop"),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["choices", "message", "usage"]), inner)
    ),
    max_leaves=4,
)
MESSAGES = st.fixed_dictionaries({"content": JSON})
CHOICES = st.fixed_dictionaries({"message": MESSAGES | JSON, "finish_reason": JSON})
REPLIES = st.fixed_dictionaries({"choices": st.lists(CHOICES | JSON) | JSON}, optional={"usage": JSON, "model": JSON})


@given(reply=REPLIES | JSON)
def test_a_reply_of_any_shape_is_an_answer_or_a_failure(reply):
    try:
        row, model = Endpoint("https://host/v1", "m")._row(json.dumps(reply).encode())
    except Failure as failure:
        assert str(failure)
    else:
        Answer.from_row({"key": "", "fields": '{"top_k_logprobs":0}'} | row)
        assert isinstance(model, str) and isinstance(row["text"].encode(), bytes)


@pytest.mark.parametrize(
    "reply, reason",
    [
        (Reply(401, b"wrong key"), "401 Unauthorized: 'wrong key'"),
        (Reply(403), "403 Forbidden"),
        (Reply(404, b"no model tiny"), "404 Not Found: 'no model tiny'"),
        (Reply(429, headers={"Retry-After": "86400"}), "asks to wait for 86400 s"),
        (Reply(429, headers={"Retry-After": formatdate(time.time() + 995_000, usegmt=True)}), "asks to wait for 99"),
    ],
)
def test_what_every_prompt_would_meet_stops_the_pass(opened, server, reply, reason):
    server.lasting |= dict.fromkeys(PROMPTS, reply)
    with opened(batch_size=2) as teacher, pytest.raises(InputError, match=reason) as error:
        teacher.ask(CALLS)
    asked = len(server.seen)
    assert asked <= 2 and f"{asked} of 6 prompts have no answer, and {6 - asked} were not asked" in str(error.value)


def test_an_endpoint_that_answers_nobody_is_given_up(opened, server, monkeypatch):
    monkeypatch.setattr(http_teacher, "GIVE_UP", 4)
    calls = [Call((("user", f"prompt {n}"),), 8) for n in range(30)]
    with opened(url="http://127.0.0.1:9/v1") as teacher, pytest.raises(InputError, match="refused") as error:
        teacher.ask(calls)
    assert "were not asked any more" in str(error.value) and "… and" in str(error.value)
    assert 4 <= int(str(error.value).split(" of 30")[0].split()[-1]) < 20


def test_the_wait_is_at_least_what_the_endpoint_asks_for(opened, server):
    server.faults[ODD].append(Reply(429, headers={"Retry-After": "0.4"}))
    with opened() as teacher:
        teacher.ask([CALLS[2]])
    assert 0.4 <= server.times[1] - server.times[0] < 2


def test_waits_double_and_spread(monkeypatch):
    monkeypatch.setattr(http_teacher, "FIRST_WAIT", 1.0)
    for attempt in range(1, 6):
        waits = [wait_before_next(attempt, 0.0) for _ in range(50)]
        assert 2 ** (attempt - 2) <= min(waits) < max(waits) <= 2 ** (attempt - 1) and len(set(waits)) > 40
    assert 9 <= wait_before_next(1, 9.0) <= 9.5


@pytest.mark.parametrize(
    "said, seconds",
    [("7", 7), ("0.5", 0.5), ("", 0), (" ", 0), ("-3", 0), ("nan", 0), ("soon", 0), (",", 0), ("Mon, 99 Foo", 0)],
)
def test_retry_after_in_seconds(said, seconds):
    assert retry_after({"Retry-After": said}) == seconds


@pytest.mark.parametrize("ahead, seconds", [(100, 100), (-100, 0)])
def test_retry_after_as_a_date(ahead, seconds):
    date = formatdate(time.time() + ahead, usegmt=True)
    assert retry_after({"Retry-After": date}) == pytest.approx(seconds, abs=2)
    assert retry_after({}) == 0
