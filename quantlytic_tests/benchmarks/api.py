"""The API's two hottest routes beside a bare ASGI application that sends the same bytes, on the same cores.

Prints requests a second, percentiles of the time until an answer was read, and CPU of the server a request, with its
ratio to the bare application's in the same run: the ratio is what contention of the machine does not move. The load
comes from 32 connections of this process, for a few seconds each.
Run with `python -m quantlytic_tests.benchmarks.api [seconds]`.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import uvloop

from quantlytic_tests.api.desk import make_desk

CONNECTIONS = 32
# An application that sends a file's bytes whatever it is asked, served as the API is.
BARE = """
import sys, uvicorn
body = open(sys.argv[1], "rb").read()
headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
uvicorn.run(app, port=int(sys.argv[2]), http="httptools", loop="uvloop", log_level="warning", access_log=False)
"""
API = "from quantlytic_assets.cli import main; import sys; main(sys.argv[1:])"


class _Asking(asyncio.Protocol):
    """A connection that asks again as soon as it has read an answer."""

    def __init__(self, request: bytes, until: float, taken: list[float], done: asyncio.Future):
        self._request, self._until, self._taken, self._done = request, until, taken, done
        self._left = -1
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the first time."""
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        self._left, self._head, self._begun = -1, b"", time.perf_counter()
        self._transport.write(self._request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        """Count down what is left of the answer."""
        if self._left < 0:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._head[:end].lower()
            assert head.startswith(b"http/1.1 200"), self._head[:200]
            at = head.index(b"content-length:") + 15
            self._left = int(head[at:].split(b"\r\n", 1)[0]) - (len(self._head) - end - 4)
        else:
            self._left -= len(data)
        if self._left == 0:
            now = time.perf_counter()
            self._taken.append(now - self._begun)
            if now < self._until:
                self._ask()
            else:
                self._transport.close()

    def connection_lost(self, _error: Exception | None) -> None:
        """The end of the time."""
        if not self._done.done():
            self._done.set_result(None)


async def _load(port: int, path: str, seconds: float) -> list[float]:
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    loop = asyncio.get_running_loop()
    taken: list[float] = []
    ends = [loop.create_future() for _ in range(CONNECTIONS)]
    until = time.perf_counter() + seconds
    for end in ends:
        await loop.create_connection(lambda end=end: _Asking(request, until, taken, end), "127.0.0.1", port)
    await asyncio.gather(*ends)
    return taken


def _cpu(process: subprocess.Popen) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(server: subprocess.Popen, port: int, path: str, seconds: float) -> tuple[float, float, np.ndarray]:
    """Requests a second, CPU of the server in microseconds a request, and p50, p95, p99 in milliseconds."""
    uvloop.run(_load(port, path, 0.5))
    before, begun = _cpu(server), time.perf_counter()
    taken = uvloop.run(_load(port, path, seconds))
    passed, used = time.perf_counter() - begun, _cpu(server) - before
    return len(taken) / passed, 1e6 * used / len(taken), np.percentile(taken, [50, 95, 99]) * 1e3


@contextmanager
def _running(command: list[str], port: int, environment: dict[str, str]) -> Iterator[subprocess.Popen]:
    import socket

    process = subprocess.Popen([sys.executable, "-c", *command], env={**os.environ, **environment})
    try:
        patience = time.monotonic() + 120
        while True:
            assert process.poll() is None and time.monotonic() < patience, "the server did not start"
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield process
    finally:
        process.terminate()
        process.wait(timeout=30)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main(seconds: float) -> None:
    """Measure both routes and both servers."""
    import urllib.request

    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        desk = make_desk(home)
        desk.resources.hot.sync()
        environment = {"QUANTLYTIC_HOME": str(home / "data"), "QUANTLYTIC_UNIVERSE": str(home / "universe.yaml")}
        port = _free_port()
        print(f"{'route':26} {'server':5} {'req/s':>8} {'p50':>7} {'p95':>7} {'p99 ms':>7} {'µs CPU':>7} {'ratio':>6}")
        with _running([API, "api", "--port", str(port)], port, environment) as api:
            while urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz").status != 200:
                time.sleep(0.2)
            for name, path in (
                ("latest price", "/prices/BTC-USD"),
                ("a session of 1,440 candles", "/candles/ETH-USD?session=2026-01-07"),
            ):
                body = home / "body"
                body.write_bytes(urllib.request.urlopen(f"http://127.0.0.1:{port}{path}").read())
                other = _free_port()
                with _running([BARE, str(body), str(other)], other, {}) as bare:
                    found = {"bare": measure(bare, other, path, seconds)}
                found["API"] = measure(api, port, path, seconds)
                for server, (rate, cpu, (p50, p95, p99)) in found.items():
                    ratio = cpu / found["bare"][1]
                    print(f"{name:26} {server:5} {rate:8,.0f} {p50:7.2f} {p95:7.2f} {p99:7.2f} {cpu:7.1f} {ratio:6.2f}")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 3.0)
