"""A small HTTP server that answers as Label Studio does, over the in-memory double."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlparse

from configs.errors import InputError
from data_contracts.review.label_studio import MemoryLabelStudio

LEGACY = "0123456789abcdef"
PERSONAL = "head.body.signature"
"""A personal access token, exchanged for `access-1`, `access-2`, ...; only the newest is good, for USES calls."""
USES = 2


class State:
    """What the server holds."""

    def __init__(self) -> None:
        self.studio = MemoryLabelStudio()
        self.access = 0
        self.left = 0
        self.requests: list[str] = []
        self.status = 0
        """If set, answer everything with it."""


class Handler(BaseHTTPRequestHandler):
    state: State

    def log_message(self, *args: Any) -> None:
        pass

    def _answer(self, status: int, body: Any) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if status == 302:
            self.send_header("Location", "http://127.0.0.1:9/elsewhere")
        self.end_headers()
        self.wfile.write(data)

    def _allowed(self) -> bool:
        given = self.headers.get("Authorization", "")
        if given == f"Bearer access-{self.state.access}" and self.state.access and self.state.left:
            self.state.left -= 1
            return True
        return given == f"Token {LEGACY}"

    def _handle(self, method: str) -> None:
        path, query = urlparse(self.path).path, parse_qs(urlparse(self.path).query)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        state = self.state
        state.requests.append(f"{method} {path}")
        if state.status:
            return self._answer(state.status, b"<html>" if state.status == 200 else {"detail": "no"})
        if path == "/api/token/refresh":
            if body != {"refresh": PERSONAL}:
                return self._answer(401, {"detail": "Token is invalid"})
            state.access, state.left = state.access + 1, USES
            return self._answer(200, {"access": f"access-{state.access}"})
        if not self._allowed():
            return self._answer(401, {"detail": "Invalid token"})
        try:
            self._route(method, path, query, body)
        except InputError:
            self._answer(404, {"detail": "Not found."})
        return None

    def _route(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> None:
        studio, parts = self.state.studio, path.strip("/").split("/")
        if parts == ["api", "projects"] and method == "GET":
            page, size = int(query["page"][0]), int(query["page_size"][0])
            first = (page - 1) * size
            shown = [{"id": n, "title": p["title"]} for n, p in enumerate(studio.projects, 1)][first : first + size]
            more = first + size < len(studio.projects)
            self._answer(200, {"count": len(studio.projects), "next": "more" if more else None, "results": shown})
        elif parts == ["api", "projects"]:
            self._answer(201, {"id": studio.create(body["title"], body["label_config"], body["maximum_annotations"])})
        elif parts == ["api", "tasks"]:
            tasks = studio._tasks(int(query["project"][0]))
            first = (int(query["page"][0]) - 1) * int(query["page_size"][0])
            shown = tasks[first : first + int(query["page_size"][0])]
            self._answer(200, {"tasks": shown, "total": len(tasks)})
        elif parts[:2] == ["api", "tasks"] and method == "DELETE":
            self._answer(204 if studio.remove([int(parts[2])]) else 404, b"")
        elif parts[3:] == ["import"]:
            self._answer(201, {"task_count": studio.import_tasks(int(parts[2]), body)})
        elif parts[3:] == ["export"] and query.get("exportType") == ["JSON"]:
            self._answer(200, studio.export(int(parts[2])))
        else:
            self._answer(404, {"detail": "Not found."})

    def do_GET(self) -> None:
        self._handle("GET")

    def do_DELETE(self) -> None:
        self._handle("DELETE")

    def do_POST(self) -> None:
        self._handle("POST")


@contextmanager
def serving(state: State) -> Iterator[str]:
    """The server's address."""
    handler = type("BoundHandler", (Handler,), {"state": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
