"""A real HTTP server that speaks OpenAI's chat API; what it says is a function of the conversation."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Say = Callable[[list[dict[str, str]]], "str | int"]
"""Messages to an answer, or to an HTTP status that is an error."""


@dataclass
class Served:
    """A running server and what it was asked."""

    url: str
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)


@contextlib.contextmanager
def serving(say: Say) -> Iterator[Served]:
    """Serve until the block ends; every answer counts 10 tokens in and 3 out."""
    served = Served("")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            served.bodies.append(body)
            served.keys.append(self.headers.get("authorization"))
            said = say(body["messages"])
            usage = {"prompt_tokens": 10, "completion_tokens": 3}
            answer: dict[str, Any] = {"choices": [{"message": {"role": "assistant", "content": said}}], "usage": usage}
            data = json.dumps(answer if isinstance(said, str) else {"error": {"message": "no"}}).encode()
            self.send_response(200 if isinstance(said, str) else said)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
