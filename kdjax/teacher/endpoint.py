"""One request to an OpenAI-compatible endpoint over HTTP, and the ways in which it can fail."""

import http.client
import io
import json
import os
import re
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from email.message import Message
from email.utils import parsedate_to_datetime
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from kdjax.errors import InputError
from kdjax.teacher.calls import Request
from kdjax.teacher.replies import Failure, NoAnswer, read

TIMEOUT = 600.0  # seconds, from connecting to the end of the reply
MAX_REPLY = 16 * 2**20  # bytes
LONGEST_WAIT = 300.0  # seconds; an endpoint that asks for more is better left alone
BUSY = (408, 409, 425, 429)  # and all from 500 on: another attempt may succeed
MALFORMED = (400, 422)
HOPELESS = (401, 403, 404)  # and all redirects: every other prompt would fail, too
LOCAL = ("localhost", "127.0.0.1", "::1")
SECRET = 12  # characters; what is shorter is a stand-in such as "EMPTY", and may well occur in an answer
BROKEN = (OSError, http.client.HTTPException, UnicodeError)  # the last: a host that no name server takes
SWITCH = "chat_template_kwargs"  # the field that vLLM, SGLang, llama.cpp and others hand to the chat template
SWITCHES = re.compile(
    r"chat_template|thinking|reasoning", re.IGNORECASE
)  # what an endpoint that refuses it may speak of
NO_TOKENS: dict = dict.fromkeys(
    ("prompt_ids", "token_ids", "target_logprobs", "logsumexp", "top_ids", "top_logprobs"), ()
)


def refuse_keys(url: str, key_variable: str) -> None:
    """Raise InputError if one of these may hold a key: configs are printed and written to files. It is not shown."""
    if not re.fullmatch(r"([A-Z_][A-Z0-9_]*)?", key_variable):
        raise InputError(
            "teacher.key_variable is not the name of an environment variable in capitals, such as OPENAI_API_KEY "
            "(it is not shown here, since it may be the key itself)"
        )
    if any(character in url for character in "@?#"):
        raise InputError(
            "teacher.url holds more than a host and a path (it is not shown here, since it may hold a key); write "
            "https://HOST/v1, and name the environment variable with the key in teacher.key_variable"
        )


def check_endpoint(url: str, model: str, key_variable: str) -> None:
    """Raise InputError if an endpoint cannot be what these say. Nothing is sent."""
    refuse_keys(url, key_variable)
    try:
        parts = urlsplit(url)
        usable = re.fullmatch(r"https?://[!-~]+", url) and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number, half a bracket
        usable = False
    if not usable or url.rstrip("/").endswith("/chat/completions"):
        raise InputError(
            f"teacher.url={url!r}: write https://HOST/v1 or http://HOST:PORT/v1, without /chat/completions"
        )
    if key_variable and parts.scheme == "http" and parts.hostname not in LOCAL:
        raise InputError(f"teacher.url={url!r}: the key would travel unencrypted; use https, or a tunnel to localhost")
    if not model or model.startswith("pypi:"):
        raise InputError(f"teacher.source={model!r}: name a model as the endpoint {url} knows it")


class Rejected(Failure):
    """The endpoint refuses a request, perhaps because of the field about thinking."""


class Endpoint:
    """Where a model answers. The API key is read from the environment when it is sent, and kept nowhere.

    `thinking` is passed to the model's chat template, until the endpoint refuses the field that carries it.
    """

    def __init__(
        self,
        url: str,
        model: str,
        key_variable: str = "",
        thinking: bool = False,
        log: Callable[[str], None] = lambda text: None,
    ):
        check_endpoint(url, model, key_variable)
        self.url, self.model, self.key_variable = url.rstrip("/"), model, key_variable
        self._switch: dict = {SWITCH: {"enable_thinking": thinking}}
        self._lock, self._log = threading.Lock(), log
        direct = (
            [urllib.request.ProxyHandler({})] if urlsplit(url).hostname in LOCAL else []
        )  # a proxy would see the key
        self._opener = urllib.request.build_opener(_Http, _Https, _NoRedirects, *direct)

    def check_key(self) -> None:
        """Raise InputError if there is to be a key and there is none."""
        if not self.key_variable:
            return
        key, where = self._key(), f"the environment variable {self.key_variable} (teacher.key_variable)"
        if not key:
            raise InputError(f"{where} is not set; export the key, or name no variable where none is needed")
        if not re.fullmatch(r"[A-Za-z0-9._~+/=:-]+", key):
            raise InputError(f"{where} holds what no key has, such as a space or a line end")
        if len(key) >= SECRET and key in self.url + self.model:
            raise InputError(
                "teacher.url or teacher.source holds the key itself; they are written to files, so take it out"
            )

    def ask(self, request: Request) -> tuple[dict, str]:
        """The columns of `Answer` that the endpoint decides, and the name under which the model answered.

        Raises:
            Failure: there is no answer; the reason never holds the key.
        """
        try:
            body, row, model = self._reply(request)
            return self._answer(row, request.call.max_new_tokens, body), model
        except Failure as failure:
            failure.args = (self._hide(str(failure)),)
            raise

    def _reply(self, request: Request) -> tuple[bytes, dict, str]:
        """A reply, its columns and who answered. A request that may be refused for the field about thinking goes without."""
        payload, switch = self._payload(request), self._switch
        try:
            return self._exchange(payload | switch)
        except Rejected:
            if not switch:
                raise
        reply = self._exchange(payload)
        self._drop_switch()
        return reply

    def _exchange(self, payload: dict) -> tuple[bytes, dict, str]:
        body = self._post(payload)
        return body, *self._row(body)

    def _drop_switch(self) -> None:
        with self._lock:
            if self._switch:
                self._switch = {}
                self._log(
                    f"teacher {self.model}: the endpoint refuses {SWITCH} (teacher.thinking), so it is asked without; "
                    "its thinking is cut out of its answers"
                )

    def _answer(self, row: dict, most: int, body: bytes) -> dict:
        """A reply's columns with what it says, and how it ended, in our words."""
        try:
            text, finish = read(row["text"], row["finish_reason"], row["completion_tokens"], most)
        except NoAnswer as failure:
            raise NoAnswer(f"{failure}: {self._excerpt(body)}", again=failure.again, row=row) from None
        return row | {"text": text, "finish_reason": finish}

    def _key(self) -> str:
        return os.environ.get(self.key_variable, "") if self.key_variable else ""

    def _hide(self, text: str) -> str:
        return text.replace(key, "[key]") if (key := self._key()) else text

    def _payload(self, request: Request) -> dict:
        call = request.call
        payload: dict[str, object] = {"model": self.model, "messages": call.messages()}
        payload |= {"max_tokens": call.max_new_tokens, "temperature": call.temperature}
        return payload | ({"seed": int(request.key[:7], 16)} if call.temperature else {})  # fits 32 bits

    def _post(self, payload: dict) -> bytes:
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "kdjax"}
        if key := self._key():
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(f"{self.url}/chat/completions", json.dumps(payload).encode(), headers)
        try:
            with self._opener.open(request, timeout=TIMEOUT) as reply:
                body = _read(reply, MAX_REPLY + 1)
        except HTTPError as error:
            with error, suppress(*BROKEN):
                raise self._refusal(error, _read(error, 4096)) from None
            raise self._refusal(error, b"") from None
        except URLError as error:
            untrusted = isinstance(error.reason, ssl.SSLCertVerificationError)
            raise Failure(f"no connection ({error.reason})", again=not untrusted, hopeless=untrusted) from None
        except BROKEN as error:
            raise Failure(f"no whole reply ({error!r})", again=True) from None
        if len(body) > MAX_REPLY:
            raise Failure(f"the reply is longer than {MAX_REPLY} bytes")
        return body

    def _refusal(self, error: HTTPError, body: bytes) -> Failure:
        code, said = error.code, f"{error.code} {error.reason}"
        if code < 400:
            where = error.headers.get("Location", "").partition("?")[0].rpartition("@")[2]
            where = self._excerpt(where.encode())
            return Failure(
                f"{said} to {where}, which is not followed; set teacher.url to the new address", hopeless=True
            )
        said += f": {self._excerpt(body)}" if body else ""
        wait = retry_after(error.headers)
        if wait > LONGEST_WAIT:
            return Failure(f"{said}; it asks to wait for {wait:.0f} s", hopeless=True)
        # A busy endpoint has not looked at the request.
        rejected = code in MALFORMED or (code not in BUSY and self._names_switch(body))
        kind = Rejected if rejected else Failure
        return kind(said, again=code in BUSY or code >= 500, hopeless=code in HOPELESS, wait=wait)

    def _names_switch(self, body: bytes) -> bool:
        """Whether an error speaks of thinking; the model's own name may hold the word."""
        return SWITCHES.search(body.decode(errors="replace").replace(self.model, "")) is not None

    def _row(self, body: bytes) -> tuple[dict, str]:
        """The columns that a reply holds, as it puts them, and the name under which the model answered.

        What is absent is as good as null, and both are as good as empty: `read` judges it.
        """
        try:
            reply = json.loads(body)
            choice = reply["choices"][0]
            message = choice["message"]
            text, finish = _text(message.get("content")), choice.get("finish_reason") or ""
        except (ValueError, RecursionError):
            raise Failure(f"the reply is no JSON: {self._excerpt(body)}", again=True) from None
        except (KeyError, IndexError, TypeError, AttributeError):
            kind = Rejected if self._names_switch(body) else Failure
            raise kind(f"the reply has no choices[0].message: {self._excerpt(body)}", again=True) from None
        if any(_is_error(place.get("error")) for place in (reply, choice, message)):
            text, finish = text or "", "error"  # half a text may be there, and an ordinary end
        elif any(_is_filtered(place.get("content_filter_results")) for place in (choice, message)):
            text, finish = text or "", "content_filter"
        elif message.get("refusal"):
            text, finish = text or "", "refusal"
        if text is None or not isinstance(finish, str):
            found = f"content {type(message.get('content')).__name__}, finish_reason {type(finish).__name__}"
            raise Failure(f"the answer is no text ({found}): {self._excerpt(body)}")
        counts = {name: _count(reply.get("usage"), name) for name in ("prompt_tokens", "completion_tokens")}
        if len(key := self._key()) >= SECRET and key in text + finish:
            raise Failure("the answer repeats the API key, so it is not kept", hopeless=True)
        text, finish = (said.encode(errors="replace").decode() for said in (text, finish))  # no half characters
        row = NO_TOKENS | counts | {"text": text, "finish_reason": finish}
        model = reply.get("model")
        return row, self._hide(model)[:200] if isinstance(model, str) else self.model

    def _excerpt(self, body: bytes) -> str:
        """The beginning of what was received, without control characters; the key is hidden before anything is cut."""
        return repr(" ".join(self._hide(body.decode(errors="replace")).split())[:300])


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is an error, as any other status is: the key goes to the host that was named, and no other."""

    def http_error_302(self, *_) -> None:
        return None

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302  # type: ignore[assignment]  # as in the base


class _InTime(io.RawIOBase):
    """What a socket receives until a moment. A reply that comes in drops, its header too, does not come in time."""

    def __init__(self, connected: socket.socket, until: float):
        self._socket, self._received, self._until = connected, connected.makefile("rb", buffering=0), until

    def makefile(self, mode: str) -> io.BufferedReader:
        """All that an HTTPResponse wants of its socket."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int | None:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"the reply was not complete after {TIMEOUT:.0f} s")
        self._socket.settimeout(left)
        return self._received.readinto(buffer)

    def close(self) -> None:
        self._received.close()
        super().close()


class _Limited(urllib.request.AbstractHTTPHandler):
    """A connection whose reply is read in time."""

    def do_open(self, http_class, req, **settings):
        until = time.monotonic() + TIMEOUT

        def connection(host: str, **settings):
            made = http_class(host, **settings)
            made.response_class = lambda connected, *args, **named: http.client.HTTPResponse(
                _InTime(connected, until),  # type: ignore[arg-type]  # a socket, as far as it is used
                *args,
                **named,
            )
            return made

        return super().do_open(connection, req, **settings)


class _Http(_Limited, urllib.request.HTTPHandler):
    pass


class _Https(_Limited, urllib.request.HTTPSHandler):
    pass


def _read(reply: http.client.HTTPResponse | HTTPError, limit: int) -> bytes:
    """At most `limit` bytes of a reply."""
    parts, length = [], 0
    while length < limit and (part := reply.read1(limit - length)):
        parts.append(part)
        length += len(part)
    if length < limit and reply.length:
        raise ConnectionError(f"{reply.length} bytes of the reply are missing")
    return b"".join(parts)


def retry_after(headers: Mapping[str, str] | Message) -> float:
    """The seconds that `Retry-After` asks for, as a number or as an HTTP date; 0 where it cannot be read."""
    said = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", said):
        return float(said)
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def _text(content) -> str | None:
    """The text of a message, or of its parts without those that are thinking; "" where it is null, None if it is no text."""
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text", part) if isinstance(part, dict) else part for part in parts if not _is_thought(part)]
    if any(text is not None and not isinstance(text, str) for text in texts):
        return None
    return "".join(text or "" for text in texts)


def _is_thought(part) -> bool:
    """Whether a part of a message is thinking, as Mistral ("thinking") and Anthropic ("redacted_thinking") send it."""
    return isinstance(part, dict) and re.search("thinking|reasoning", str(part.get("type"))) is not None


def _is_error(error) -> bool:
    """Whether a field `error` says anything: some endpoints send it with every reply, empty or with the code 0."""
    if isinstance(error, dict):
        return str(error.get("code")) != "0" and any(error.values())
    return bool(error)


def _is_filtered(results) -> bool:
    """Whether a filter, as Azure lists them by category, held the answer back."""
    found = results.values() if isinstance(results, dict) else ()
    return any(isinstance(result, dict) and result.get("filtered") for result in found)


def _count(usage, name: str) -> int:
    """A number of tokens out of a reply's `usage`; 0 where the endpoint does not count."""
    count = usage.get(name) if isinstance(usage, dict) else None
    if not isinstance(count, int | float) or count != count // 1:
        return 0
    return int(count) if 0 <= count < 2**31 else 0
