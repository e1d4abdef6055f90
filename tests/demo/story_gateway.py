"""A gateway that answers from the story: right for some versions, wrong for others. Plain HTTP, no model."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class StoryGateway:
    """What the gateway has seen, and how it answers."""

    def __init__(self, answer: Callable[[str], str], status: int = 200) -> None:
        self.answer = answer
        self.status = status
        self.chats: list[dict[str, Any]] = []
        self.feedback: list[dict[str, Any]] = []
        self.incidents: list[dict[str, Any]] = []
        self.lock = threading.Lock()

    def reply(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        with self.lock:
            if path == "/v1/chat/completions":
                self.chats.append(body)
                text = self.answer(body["messages"][-1]["content"])
                return {"id": f"chatcmpl-{len(self.chats)}", "choices": [{"message": {"content": text}}]}
            if path == "/incidents":
                self.incidents.append(body)
                return {"id": "i1"}
            status = "duplicate" if body in self.feedback else "accepted"
            self.feedback.append(body)
            return {"id": str(len(self.feedback)), "status": status}


@contextmanager
def serve(gateway: StoryGateway) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            data = json.dumps(gateway.reply(self.path, body)).encode()
            self.send_response(gateway.status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.send_header("x-tidemill-version", body.get("model", "base"))
            self.send_header("x-tidemill-arm", "champion")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
