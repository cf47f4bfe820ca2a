"""An OpenAI-compatible endpoint without a model, on a free local port, with faults on demand."""

import json
import threading
import time
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def answer_to(prompt: str) -> dict:
    """A whole reply, as servers give it; the text is the prompt backwards."""
    choice = {"index": 0, "message": {"role": "assistant", "content": prompt[::-1]}, "finish_reason": "stop"}
    usage = {"prompt_tokens": len(prompt), "completion_tokens": 3, "total_tokens": len(prompt) + 3}
    return {"object": "chat.completion", "model": "tiny-2026-01", "choices": [choice], "usage": usage}


class Reply:
    """What the server does: a status, headers, a body, after `delay` seconds.

    `drop` bytes before its end the connection breaks; with `drip` the body comes byte by byte, so many seconds apart, with
    `drip_header` the header does.
    """

    def __init__(self, status=200, body=b"", headers=(), *, drop=0, delay=0.0, drip=0.0, drip_header=0.0, phrase=None):
        self.status, self.headers, self.phrase = status, dict(headers), phrase
        self.drop, self.delay, self.drip, self.drip_header = drop, delay, drip, drip_header
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()


class Server(ThreadingHTTPServer):
    """`faults[prompt]` are served first, in order, then answers; `lasting[prompt]` is served for ever."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.faults: dict[str, list[Reply]] = defaultdict(list)
        self.lasting: dict[str, Reply] = {}
        self.delay, self.answer = 0.0, answer_to
        self.seen: list[tuple[str, dict, dict]] = []  # path, headers, payload
        self.times: list[float] = []
        self.under_way = self.most_under_way = 0
        self.lock = threading.Lock()

    def prompts(self) -> list[str]:
        """What was asked, in order."""
        return [payload["messages"][-1]["content"] for _, _, payload in self.seen]

    def reply(self, prompt: str) -> Reply:
        """What the next request with this prompt meets."""
        if prompt in self.lasting:
            return self.lasting[prompt]
        return self.faults[prompt].pop(0) if self.faults[prompt] else Reply(body=self.answer(prompt))

    def handle_error(self, *_):
        """A client that gave up is no news."""

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    def do_POST(self):
        server = self.server
        payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.seen.append((self.path, dict(self.headers), payload))
            server.times.append(time.monotonic())
            server.under_way += 1
            server.most_under_way = max(server.most_under_way, server.under_way)
            reply = server.reply(payload["messages"][-1]["content"])
        time.sleep(server.delay + reply.delay)
        with server.lock:
            server.under_way -= 1
        self.send_response(reply.status, reply.phrase)
        for name, value in (
            {"Content-Type": "application/json", "Content-Length": len(reply.body)} | reply.headers
        ).items():
            self.send_header(name, str(value))
        self._headers_buffer.append(b"\r\n")
        self._write(b"".join(self._headers_buffer), reply.drip_header)
        self._write(reply.body[: len(reply.body) - reply.drop], reply.drip)

    def _write(self, data: bytes, drip: float):
        if not drip:
            self.wfile.write(data)
            return
        for n in range(len(data)):
            self.wfile.write(data[n : n + 1])
            time.sleep(drip)

    def log_message(self, *_):
        """Silent."""
