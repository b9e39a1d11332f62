"""A websocket server over a hot store, and what writes to the store."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgpack
import orjson
import uvicorn
from websockets.sync.client import ClientConnection, connect

from quantlytic_assets.push.alpaca import AlpacaConnection
from quantlytic_assets.push.catalog import Catalog, Market
from quantlytic_assets.push.connection import Permit, Push, Refused
from quantlytic_assets.push.limits import PushLimits
from quantlytic_assets.push.native import NativeConnection
from quantlytic_assets.serving.hot_store import HotStore, Writer
from quantlytic_assets.serving.rows import iso, micros, row

MINUTE = 60_000_000
START = micros("2026-01-02T14:30:00Z")
CATALOG = Catalog(
    {
        "crypto_1m": Market(("BTC-USD", "ETH-USD"), ("1m", "5m"), True),
        "equities_1m": Market(("AAPL", "MSFT"), ("1m", "1d"), False),
    },
    {"cross": ("equities_1m", ("AAPL", "MSFT"))},
)
GENEROUS = PushLimits(connects=100_000, frames=100_000, burst=100_000, wrong=1_000_000)
KEY = "ql_key_of_the_tests"


class Doorkeeper:
    """Knows one key; nobody needs it where the door is open."""

    def __init__(self, is_open: bool = True, scopes: frozenset[str] = frozenset({"market:read", "trading:read"})):
        self.is_open = is_open
        self.scopes = scopes

    def of_headers(self, headers) -> Permit:
        given = dict(headers).get(b"authorization", b"").decode().removeprefix("Bearer ")
        if self.is_open and not given:
            return lambda: self.scopes
        return self.of_key(given)

    def of_key(self, key: str, secret: str | None = None) -> Permit:
        def permit() -> frozenset[str]:
            if KEY not in (key, secret):
                raise Refused("no such key")
            return self.scopes

        permit()
        return permit


def add_bar(to: Writer, minute: int, symbol: str = "BTC-USD", revision: int = 0, dataset: str = "crypto_1m",
            interval: str = "1m", final: bool = True, close: float | None = None) -> int:  # fmt: skip
    """A bar in the series and in the journal; its number there."""
    time = START + minute * MINUTE
    values = {
        "o": 1.0,
        "h": 2.0,
        "l": 0.5,
        "c": float(minute) if close is None else close,
        "v": 10.0,
        "n": 3,
        "vw": 1.5,
    }
    body = row(time, values)
    session = datetime.fromtimestamp(time / 1e6, UTC).date()
    to.add_rows(dataset, f"bars/{interval}", symbol, session, [(time, body)])
    told = body[:-1] + b',"revision":%d,"final":%s}' % (revision, b"true" if final else b"false")
    return to.tell(("bars", dataset, interval, symbol), told)


def add_price(to: Writer, price: float, symbol: str = "BTC-USD", dataset: str = "crypto_1m", size: float = 1.0) -> int:
    """A newest price, in the store and in the journal; its number there."""
    time = iso(micros(datetime.now(UTC)))
    body = orjson.dumps({"t": time, "p": price, "s": size, "source": "trade"})
    to.put_latest(dataset, symbol, body)
    return to.tell(("latest", dataset, symbol), body)


@dataclass
class Desk:
    """A server: `push` is what its connections share, `loop` the event loop that it runs in."""

    push: Push
    port: int
    loop: asyncio.AbstractEventLoop

    def connect(self, path: str = "/stream", **options: Any) -> ClientConnection:
        """A client."""
        return connect(f"ws://127.0.0.1:{self.port}{path}", compression=None, **options)


@contextlib.contextmanager
def serving(app) -> Iterator[tuple[int, asyncio.AbstractEventLoop]]:
    """An application on a free port of 127.0.0.1, and its event loop."""
    config = uvicorn.Config(app, port=0, log_level="error", ws="websockets-sansio", ws_per_message_deflate=False,
                            ws_max_size=65_536, lifespan="off")  # fmt: skip
    server = uvicorn.Server(config)
    loops: list[asyncio.AbstractEventLoop] = []

    async def run() -> None:
        loops.append(asyncio.get_running_loop())
        await server.serve()

    thread = threading.Thread(target=asyncio.run, args=(run(),), daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        thread.join(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1], loops[0]
    finally:
        server.should_exit = True
        thread.join(20)


@contextlib.contextmanager
def desk(
    store: HotStore | Callable[[], HotStore], credentials: Doorkeeper | None = None, limits: PushLimits = GENEROUS
) -> Iterator[Desk]:
    """A server over the store, by both protocols."""
    push = Push(
        (lambda: store) if isinstance(store, HotStore) else store, lambda: CATALOG, credentials or Doorkeeper(), limits
    )

    async def app(scope, receive, send) -> None:
        if scope["path"] == "/stream":
            await push.serve(NativeConnection, scope, receive, send)
        else:
            alpaca = partial(AlpacaConnection, round_the_clock="crypto" in scope["path"])
            await push.serve(alpaca, scope, receive, send)

    with serving(app) as (port, loop):
        yield Desk(push, port, loop)
        asyncio.run_coroutine_threadsafe(push.close(), loop).result(10)


def told(client: ClientConnection, wanted: str | None = None, patience: float = 20) -> dict[str, Any]:
    """The next message, or the next of a type."""
    while True:
        frame = client.recv(timeout=patience)
        message = orjson.loads(frame) if isinstance(frame, str) else msgpack.unpackb(frame)
        if wanted is None or message["type"] == wanted:
            return message


def ask(client: ClientConnection, **frame: Any) -> None:
    """Send a frame."""
    client.send(orjson.dumps(frame).decode())


def times(message: Mapping[str, Any]) -> list[str]:
    """The times of a message's updates."""
    return [item["data"]["t"] for item in message["items"]]
