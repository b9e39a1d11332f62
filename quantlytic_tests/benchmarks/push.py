"""Push: delays of updates at 1,000 websockets with 10 updates a second each, as ratios to a bare fan-out.

A writer's process puts prices into the hot store, a server's process pushes them, clients are in this one; all share
the machine. The baseline is the same server with an application that does nothing but send frames of the same size to
the same clients. Bounded: each part takes `SECONDS`. `make bench`, or
`python -m quantlytic_tests.benchmarks.push [CLIENTS] [SECONDS]`.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import uvicorn
import uvloop

from quantlytic_assets.push.catalog import Catalog, Market
from quantlytic_assets.push.connection import Permit, Push
from quantlytic_assets.push.limits import PushLimits
from quantlytic_assets.push.native import NativeConnection
from quantlytic_assets.serving.hot_store import HotStore

CLIENTS, SECONDS = 1_000, 12
SYMBOLS = tuple(f"S{number:02d}" for number in range(20))
PERIOD = 0.1
LIMIT_MS = 250
_STAMP = b'"at":'
_TICKS = 100.0


class Open:
    """Everybody may read."""

    def of_headers(self, headers) -> Permit:
        """See `push.connection.Credentials`."""
        return lambda: frozenset({"market:read"})

    def of_key(self, key: str, secret: str | None = None) -> Permit:
        """See `push.connection.Credentials`."""
        return self.of_headers(())


def serve(app, port: int) -> None:
    """Serve an application until the process is ended."""
    _many_files()
    options = {"ws": "websockets-sansio", "ws_per_message_deflate": False, "lifespan": "off", "log_level": "error"}
    uvicorn.Server(uvicorn.Config(app, port=port, loop="uvloop", backlog=4096, **options)).run()


def serve_push(directory: Path, port: int) -> None:
    """The hub and its protocol over the store in a directory."""
    store = HotStore(directory)
    catalog = Catalog({"prices": Market(SYMBOLS, ("1m",), True)}, {})
    push = Push(lambda: store, lambda: catalog, Open(), PushLimits(connects=10**6, connections=10**5))

    async def app(scope, receive, send) -> None:
        await push.serve(NativeConnection, scope, receive, send)

    serve(app, port)


def serve_fan_out(port: int) -> None:
    """Frames made by a timer, sent as they are to all clients of a symbol."""
    told: dict[str, list] = {symbol: [b"", asyncio.Event()] for symbol in SYMBOLS}
    ticking: list[asyncio.Task] = []

    async def tick() -> None:
        step = PERIOD / len(SYMBOLS)
        due = time.perf_counter()
        while True:
            for symbol, one in told.items():
                before = one[1]
                one[:] = [frame(symbol), asyncio.Event()]
                before.set()
                due += step
                await asyncio.sleep(max(0.0, due - time.perf_counter()))

    async def app(scope, receive, send) -> None:
        if not ticking:
            ticking.append(asyncio.create_task(tick()))
        await receive()
        await send({"type": "websocket.accept"})
        symbol = orjson.loads((await receive())["text"])["symbols"][0]
        one = told[symbol]
        while True:
            await one[1].wait()
            await send({"type": "websocket.send", "text": one[0]})

    serve(app, port)


def body(symbol: str) -> bytes:
    """A price with the time at which it was made."""
    return orjson.dumps({"t": "2026-01-02T14:30:00.000000Z", "p": 101.25, "s": 3, "source": symbol, "at": time.time()})


def frame(symbol: str) -> str:
    """What the hub's protocol would send of one price."""
    head = (
        '{"type":"updates","cursor":"0123456789ab-1000000","sequence":1000000,"dropped":0,"items":[{"channel":"latest",'
    )
    return f'{head}"dataset":"prices","symbol":"{symbol}","sequence":1000000,"data":{body(symbol).decode()}}}]}}'


def write(directory: Path, seconds: float) -> None:
    """Put each symbol's price ten times a second, one after the other."""
    store = HotStore(directory)
    step = PERIOD / len(SYMBOLS)
    due = start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        for symbol in SYMBOLS:
            with store.write() as to:
                price = body(symbol)
                to.put_latest("prices", symbol, price)
                to.tell(("latest", "prices", symbol), price)
            due += step
            time.sleep(max(0.0, due - time.perf_counter()))


class Listener(asyncio.Protocol):
    """A websocket client that does as little as it can: it takes frames apart and keeps the delays of updates."""

    def __init__(self, symbol: str, conflate_ms: int, delays: list[float]):
        wanted = {"action": "subscribe", "dataset": "prices", "symbols": [symbol], "channels": ["latest"]}
        self._wanted, self._delays = orjson.dumps({**wanted, "conflate_ms": conflate_ms}), delays
        self._buffer, self._open = b"", False

    def connection_made(self, transport) -> None:
        """Ask for the upgrade."""
        self.transport = transport
        transport.write(
            b"GET /stream HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )

    def data_received(self, data: bytes) -> None:
        """Frames of a server: no masks, and none of ours has 64 kB."""
        now = time.time()
        buffer = self._buffer + data
        if not self._open:
            head, end, buffer = buffer.partition(b"\r\n\r\n")
            if not end:
                self._buffer = head
                return
            assert b" 101 " in head, head
            self._open = True
            length = len(self._wanted)
            self.transport.write(bytes([0x81, 0xFE]) + length.to_bytes(2, "big") + bytes(4) + self._wanted)
        while len(buffer) >= 4:
            length, begin = buffer[1], 2
            if length == 126:
                length, begin = int.from_bytes(buffer[2:4], "big"), 4
            if len(buffer) < begin + length:
                break
            found = buffer.find(_STAMP, begin, begin + length)
            if found > 0 and buffer.startswith(b'{"type":"updates"', begin):
                found += len(_STAMP)
                self._delays.append(1000 * (now - float(buffer[found : buffer.index(b"}", found)])))
            buffer = buffer[begin + length :]
        self._buffer = buffer


async def listen(port: int, clients: int, seconds: float, conflate_ms: int) -> list[float]:
    """Milliseconds from when a price was made to when a client had it, of all frames in a stretch of time."""
    delays: list[float] = []
    loop, transports = asyncio.get_running_loop(), []
    for number in range(clients):
        symbol = SYMBOLS[number % len(SYMBOLS)]
        transport, _ = await loop.create_connection(
            lambda one=symbol: Listener(one, conflate_ms, delays), "127.0.0.1", port
        )
        transports.append(transport)
    await asyncio.sleep(2)
    delays.clear()
    await asyncio.sleep(seconds)
    found = list(delays)
    for transport in transports:
        transport.abort()
    return found


@contextlib.contextmanager
def process(*arguments: object) -> Iterator[subprocess.Popen]:
    """This module in a process of its own, ended with the block."""
    with subprocess.Popen([sys.executable, "-m", __name__ if __name__ != "__main__" else __spec__.name,
                           *map(str, arguments)]) as one:  # fmt: skip
        try:
            yield one
        finally:
            one.terminate()


def measured(
    name: str, port: int, server: subprocess.Popen, clients: int, seconds: float, conflate_ms: int = 0
) -> tuple[float, float]:
    """(p99 in ms, microseconds of the server's CPU a frame), printed with more of the kind."""
    _wait_for(port)
    before = _cpu(server.pid)
    start = time.perf_counter()
    delays = sorted(uvloop.run(listen(port, clients, seconds, conflate_ms)))
    spent, took = _cpu(server.pid) - before, time.perf_counter() - start
    rate = len(delays) / seconds
    p50, p99 = statistics.median(delays), delays[int(0.99 * len(delays))]
    cost = 1e6 * spent / (rate * took)
    print(
        f"{name:<16} {clients} clients, {rate / clients:.1f} updates a second each: p50 {p50:.0f} ms, "
        f"p99 {p99:.0f} ms, highest {delays[-1]:.0f} ms; {cost:.0f} us of the server's CPU a frame"
    )
    return p99, cost


def _cpu(pid: int) -> float:
    """Seconds of CPU that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _wait_for(port: int) -> None:
    for _ in range(400):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit("the server does not answer")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _many_files() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main(clients: int = CLIENTS, seconds: int = SECONDS) -> None:
    """Print the figures of both, and the ratios."""
    _many_files()
    port = _free_port()
    with process("fan-out", port) as server:
        bare_p99, bare_cost = measured("fan-out", port, server, clients, seconds)
    with tempfile.TemporaryDirectory() as directory:
        place, port = Path(directory) / "hot", _free_port()
        HotStore(place).close()
        with process("serve", place, port) as server, process("write", place, 3 * seconds + 60):
            for conflate_ms in (0, 100):
                p99, cost = measured(f"push, {conflate_ms} ms", port, server, clients, seconds, conflate_ms)
                within = "within" if p99 <= LIMIT_MS else "beyond"
                print(
                    f"push, conflated over {conflate_ms} ms / fan-out: p99 {p99 / bare_p99:.2f}, "
                    f"CPU a frame {cost / bare_cost:.2f}; its p99 is {within} {LIMIT_MS} ms"
                )


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", where, number]:
            serve_push(Path(where), int(number))
        case ["fan-out", number]:
            serve_fan_out(int(number))
        case ["write", where, length]:
            write(Path(where), float(length))
        case given:
            main(*map(int, given))
