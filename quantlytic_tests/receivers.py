"""Who receives messages in the tests: a webhook and a mail server on 127.0.0.1, which reject on demand."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Webhook:
    """Keeps the JSON that is posted to it; answers with `status`."""

    def __init__(self) -> None:
        self.posts: list[dict] = []
        self.status = 200
        self.port = 0

    @property
    def url(self) -> str:
        """Its address for QUANTLYTIC_NOTIFY, with a secret in it."""
        return f"json://someone:s3cret@127.0.0.1:{self.port}/hook"

    @property
    def texts(self) -> list[tuple[str, str]]:
        """(title, body) of what came."""
        return [(one["title"], one["message"]) for one in self.posts]

    @contextmanager
    def serving(self) -> Iterator[Webhook]:
        """On a free port until the block ends."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if receiver.status == 200:
                    receiver.posts.append(body)
                self.send_response(receiver.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()


class Mailbox:
    """Speaks as much SMTP as a message takes, and keeps it; with `rejecting` it takes none."""

    def __init__(self) -> None:
        self.mails: list[tuple[str, list[str], object]] = []
        self.rejecting = False
        self.port = 0

    @property
    def url(self) -> str:
        """Its address for QUANTLYTIC_NOTIFY."""
        return f"mailto://127.0.0.1:{self.port}?from=alerts@example.com&to=me@example.com,you@example.com&mode=insecure"

    @contextmanager
    def serving(self) -> Iterator[Mailbox]:
        """On a free port until the block ends."""
        receiver = self

        class Handler(socketserver.StreamRequestHandler):
            def say(self, text: str) -> None:
                self.wfile.write(text.encode() + b"\r\n")

            def handle(self) -> None:
                self.say("220 localhost")
                sender, to = "", []
                for line in self.rfile:
                    command = line.decode().strip()
                    word = command.split(" ")[0].split(":")[0].upper()
                    if word in ("EHLO", "HELO", "RSET", "NOOP"):
                        self.say("250 localhost")
                    elif word == "MAIL":
                        sender = command.partition("<")[2].partition(">")[0]
                        self.say("451 try later" if receiver.rejecting else "250 ok")
                    elif word == "RCPT":
                        to.append(command.partition("<")[2].partition(">")[0])
                        self.say("250 ok")
                    elif word == "DATA":
                        self.say("354 go on")
                        body = b""
                        while (part := self.rfile.readline()) != b".\r\n":
                            body += part.removeprefix(b".") if part.startswith(b"..") else part
                        receiver.mails.append((sender, to, message_from_bytes(body, policy=policy.default)))
                        self.say("250 taken")
                    elif word == "QUIT":
                        self.say("221 bye")
                        return
                    else:
                        self.say("502 not known here")

        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
