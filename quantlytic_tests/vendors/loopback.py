"""Any function from a question to a reply, served over HTTP on 127.0.0.1. What is asked and replied is the caller's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote, urlsplit


@dataclass(frozen=True)
class Question:
    """A GET: its path, unquoted, its parameters and headers."""

    path: str
    params: Mapping[str, str]
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Reply:
    """`cut`: so many bytes less are sent than the header promises."""

    status: int = 200
    body: str | bytes = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    kind: str = "application/json;charset=utf-8"
    cut: int = 0


@contextmanager
def serving(answer: Callable[[Question], Reply]) -> Iterator[str]:
    """The URL of a server that gives `answer`'s replies until the block ends; questions may come at the same time."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(answer))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(20)


def _handler(answer: Callable[[Question], Reply]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Head and body go out as two packets, and the second must not wait for the first one's receipt.
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            params = dict(parse_qsl(parts.query, keep_blank_values=True))
            reply = answer(Question(unquote(parts.path), params, dict(self.headers)))
            body = reply.body.encode("utf-8", "surrogatepass") if isinstance(reply.body, str) else reply.body
            self.send_response_only(reply.status)
            for name, value in {"Content-Type": reply.kind, "Content-Length": str(len(body)), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body[: len(body) - reply.cut])
            self.close_connection = bool(reply.cut)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
