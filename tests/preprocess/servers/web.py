"""A web server on the loopback address that serves a folder and misbehaves on request.

What happens to a request depends on its path, on how often it was asked for and on the seed, never on the order
of threads, so that a run can be repeated.
"""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

KINDS = ("unavailable", "busy", "stall", "truncate", "short", "reset")


@dataclass
class Faults:
    """How a server misbehaves.

    Args:
        rate: share of requests that fail for a passing reason.
        kinds: which way, of KINDS.
        seed: of the choice.
        stall_s: how long a stalled answer is silent.
        broken: parts of paths that always fail, with how: a kind, or "missing".
    """

    rate: float = 0.0
    kinds: tuple[str, ...] = KINDS
    seed: int = 0
    stall_s: float = 1.0
    broken: dict[str, str] = field(default_factory=dict)

    def at(self, path: str, ask: int) -> str | None:
        """What befalls the `ask`-th request for a path."""
        for part, kind in self.broken.items():
            if part in path:
                return kind
        chance = random.Random(f"{self.seed} {path} {ask}")
        return chance.choice(self.kinds) if chance.random() < self.rate else None


class Web(ThreadingHTTPServer):
    """Serves a folder; counts what is asked for and what befell it."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, folder: Path, faults: Faults, handler: type[BaseHTTPRequestHandler] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), handler or Handler)
        self.folder = folder
        self.faults = faults
        self.asked: Counter[str] = Counter()
        self.befell: Counter[str] = Counter()
        self.together = self.most_together = 0
        self.guard = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def requests(self) -> int:
        return sum(self.asked.values())

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up, as ours do after a stall, are no news."""


class Handler(BaseHTTPRequestHandler):
    """GET and HEAD of files; a path of Google's JSON interface is a file too."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes; together with delayed ACKs each answer took 40 ms
    server: Web

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        with self.server.guard:
            self.server.asked[path] += 1
        self.count(+1)
        try:
            self.serve(path)
        finally:
            self.count(-1)

    def count(self, change: int) -> None:
        """Requests under way."""
        with self.server.guard:
            self.server.together += change
            self.server.most_together = max(self.server.most_together, self.server.together)

    def serve(self, path: str) -> None:
        name = unquote(path.replace("/b/", "/", 1).replace("/o/", "/", 1).split("/storage/v1/")[-1])
        file = self.server.folder / name.lstrip("/")
        self.deliver(path, file.read_bytes() if file.is_file() else None)

    def deliver(self, path: str, body: bytes | None, *, kind: str = "application/octet-stream") -> None:
        fault = self.server.faults.at(path, self.server.asked[path])
        if body is None or fault == "missing":
            self.answer(404, b"not here")
            return
        if fault is not None:
            with self.server.guard:
                self.server.befell[fault] += 1
        if fault == "unavailable":
            self.answer(503, b"try later")
        elif fault == "busy":
            self.answer(429, b"too many requests")
        elif fault == "stall":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
            self.count(-1)  # the other side is long gone when we wake up
            time.sleep(self.server.faults.stall_s)
            self.count(+1)
            self.close_connection = True
        elif fault == "truncate":
            self.answer(200, body[: len(body) // 2], length=len(body), kind=kind)
            self.close_connection = True
        elif fault == "short":
            self.answer(200, body[: len(body) // 2], kind=kind)
        elif fault == "damage":
            self.answer(200, body[:16] + bytes(255 - byte for byte in body[16:]), kind=kind)
        elif fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-")
            self.wfile.flush()
            self.connection.close()
            self.close_connection = True
        else:
            self.answer(200, body, kind=kind)

    def answer(
        self, status: int, body: bytes, *, length: int | None = None, kind: str = "application/octet-stream"
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            with suppress(ConnectionError):
                self.wfile.write(body)


@contextmanager
def serving(
    folder: Path, faults: Faults | None = None, *, handler: type[BaseHTTPRequestHandler] | None = None
) -> Iterator[Web]:
    """A server of a folder, for as long as the context lasts."""
    web = Web(folder, faults or Faults(), handler)
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield web
    finally:
        web.shutdown()
        web.server_close()
        thread.join()
