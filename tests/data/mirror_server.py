"""A mirror of data sets on this machine, and the ways in which it may answer."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Callable

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


class Mirror(http.server.ThreadingHTTPServer):
    """A server on this machine that answers a request for a path as `answers` says, else with 404."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        self.end = threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}/"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        with contextlib.suppress(ConnectionError):
            self.server.answers.get(self.path, answer_404)(self)

    def log_message(self, *_: object) -> None:
        pass


def answer_404(request: http.server.BaseHTTPRequestHandler) -> None:
    request.send_error(404)


def answer_with(content: bytes, announced: int | None = None) -> Answer:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(announced or len(content)))
        request.end_headers()
        request.wfile.write(content)

    return answer


def answer_endlessly(pause_s: float, size: int) -> Answer:
    def answer(request: Handler) -> None:
        request.send_response(200)
        request.end_headers()
        while not request.server.end.wait(pause_s):
            request.wfile.write(bytes(size))

    return answer  # type: ignore[return-value]


def answer_never(request: Handler) -> None:
    request.server.end.wait(30)


def redirect_to(address: str) -> Answer:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("Location", address)
        request.end_headers()

    return answer
