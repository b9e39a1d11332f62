"""A small exchange on 127.0.0.1 that lives through recorded trades: websocket streams and REST, with faults on demand.

It has one clock, fast or slow, which goes on whether anybody is connected or not; who is away misses what happens. It
speaks as Binance or as Coinbase. Nothing of the package's own code is used to write what it says.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from quantlytic_tests.feeds.recorded import MINUTE, Bar, Recorded, bars_of, lines

_KLINE_EVERY = 10_000
_HEARTBEAT_EVERY = 1_000


@dataclass
class Plan:
    """What goes wrong on one connection, after it has sent so many messages of trades.

    close: a close code; reset: the TCP connection is torn; silent: nothing is sent any more, the connection stays up;
    shutdown: the server says that it is going, and goes on. skip: so many trades are never sent. The others hold all
    the time: every `repeat`th message is sent twice, and every `swap` messages are sent in reverse.
    """

    after: int = 0
    close: int | None = None
    reset: bool = False
    silent: bool = False
    shutdown: bool = False
    skip: int = 0
    garbage: bool = False
    repeat: int = 0
    swap: int = 0
    lifetime: float | None = None


@dataclass
class Reply:
    """An answer that the REST side gives in place of a true one."""

    status: int = 200
    body: str = "[]"
    headers: dict[str, str] = field(default_factory=dict)
    kind: str = "application/json"


class Exchange:
    """Serves `markets` (trades by the venue's symbol) from `start` (ms) at `speed` times real time.

    `plans`: what goes wrong on the first, second, … connection. `replies`: what REST answers first.
    """

    def __init__(
        self,
        markets: dict[str, Sequence[Recorded]],
        speed: float,
        coinbase: bool = False,
        plans: Sequence[Plan] = (),
        replies: Sequence[Reply] = (),
        klines: bool = True,
    ):
        self.markets = {name: list(them) for name, them in markets.items()}
        self.speed = speed
        self.plans = list(plans)
        self.replies = list(replies)
        self.connections = 0
        self.requests: list[dict[str, str]] = []
        self.greetings: list[dict] = []
        self.coinbase = coinbase
        self._klines = klines
        self._times = {name: [one.time for one in them] for name, them in self.markets.items()}
        # A moment earlier, so that whoever connects first misses nothing.
        self.begin = min(times[0] for times in self._times.values()) - 2_000
        self.end = max(times[-1] for times in self._times.values())
        self.hold: int | None = None
        self._started: float | None = None
        self._stop = threading.Event()
        self.ws_port = self.rest_port = 0

    # Time ------------------------------------------------------------------------------------------------------

    def now(self) -> int:
        """The exchange's time in milliseconds; it begins with the first connection, and stands still at `hold`."""
        passed = 0.0 if self._started is None else time.monotonic() - self._started
        now = self.begin + int(passed * 1000 * self.speed)
        return now if self.hold is None else min(now, self.hold)

    def release(self) -> None:
        """Let time go on from where it was held."""
        now, self.hold = self.now(), None
        self._started = time.monotonic() - (now - self.begin) / 1000 / self.speed

    def start(self) -> None:
        """Let time pass."""
        if self._started is None:
            self._started = time.monotonic()

    # Websocket -------------------------------------------------------------------------------------------------

    async def _stream(self, socket: ServerConnection) -> None:
        number, self.connections = self.connections, self.connections + 1
        plan = self.plans[number] if number < len(self.plans) else Plan()
        # A stopped server must not be held up by a client that does not say goodbye.
        socket.close_timeout = 1
        if self.coinbase:
            self.greetings.append(json.loads(await asyncio.wait_for(socket.recv(), 5)))
            await socket.send(json.dumps({"type": "subscriptions", "channels": []}))
        self.start()
        try:
            await self._send_all(socket, plan)
        except ConnectionClosed:
            pass

    async def _send_all(self, socket: ServerConnection, plan: Plan) -> None:
        sent = skipped = 0
        opened = time.monotonic()
        async for batch in self._batches():
            if plan.lifetime is not None and time.monotonic() - opened > plan.lifetime:
                # As the 24-hour cut: no farewell.
                socket.transport.abort()
                return
            for message in _disorder(batch, plan):
                if sent == plan.after:
                    if plan.close is not None:
                        await socket.close(plan.close, "as planned")
                        return
                    if plan.reset:
                        socket.transport.abort()
                        return
                    if plan.silent:
                        await socket.wait_closed()
                        return
                    if plan.shutdown:
                        await socket.send(json.dumps({"e": "serverShutdown", "E": self.now()}))
                        plan.shutdown = False
                    if plan.garbage:
                        await socket.send("<html>not what you wanted</html>")
                        plan.garbage = False
                if sent >= plan.after and skipped < plan.skip and ("trade_id" in message or '"e":"trade"' in message):
                    skipped += 1
                    continue
                sent += 1
                await socket.send(message)

    async def _batches(self) -> AsyncIterator[list[str]]:
        """Messages as they fall due, from now on."""
        begin = self.now()
        position = {name: bisect_right(times, begin) for name, times in self._times.items()}
        noise = iter([line for line in lines() if "bookTicker" in line] * 50)
        if self.coinbase:
            seen = [(name, them[position[name] - 1]) for name, them in self.markets.items() if position[name]]
            yield [self._match(name, last, "last_match") for name, last in seen]
        regular = _HEARTBEAT_EVERY if self.coinbase else _KLINE_EVERY
        due = begin - begin % regular + regular
        while not self._stop.is_set():
            now = self.now()
            batch: list[tuple[int, str]] = []
            for name, them in self.markets.items():
                upto = bisect_right(self._times[name], now)
                for one in them[position[name] : upto]:
                    text = self._match(name, one, "match") if self.coinbase else self._trade(name, one)
                    batch.append((one.time, text))
                    if not self.coinbase and one.number % 20 == 0:
                        batch.append((one.time, next(noise)))
                position[name] = max(upto, position[name])
            while due <= now:
                for name in self.markets:
                    batch += [(due, text) for text in self._regular(name, due)]
                due += regular
            if not batch and now == self.hold:
                # Time stands still, the venue does not fall silent.
                batch += [(now, text) for name in self.markets for text in self._regular(name, now)]
                await asyncio.sleep(0.1)
            # What happened at the same time keeps its order: trades before what sums them up.
            batch.sort(key=lambda one: one[0])
            if batch:
                yield [text for _, text in batch]
            await asyncio.sleep(0.005)

    def _trade(self, name: str, one: Recorded) -> str:
        data = {
            "e": "trade",
            "E": one.written,
            "s": name,
            "t": one.number,
            "p": one.price,
            "q": one.size,
            "T": one.time,
            "m": one.buyer_is_maker,
            "M": True,
        }
        return _compact({"stream": f"{name.lower()}@trade", "data": data})

    def _match(self, name: str, one: Recorded, kind: str) -> str:
        return _compact(
            {
                "type": kind,
                "trade_id": one.number,
                "maker_order_id": "-",
                "taker_order_id": "-",
                "side": "buy" if one.buyer_is_maker else "sell",
                "size": one.size,
                "price": one.price,
                "product_id": name,
                "sequence": one.number * 3,
                "time": _iso(one.time),
            }
        )

    def _regular(self, name: str, at: int) -> Iterator[str]:
        if self.coinbase:
            seen = bisect_right(self._times[name], at)
            last = self.markets[name][seen - 1].number if seen else 0
            yield _compact(
                {"type": "heartbeat", "sequence": at, "last_trade_id": last, "product_id": name, "time": _iso(at)}
            )
        elif self._klines:
            if at % MINUTE == 0:
                yield self._kline(name, at - MINUTE, at, closed=True)
            yield self._kline(name, at - at % MINUTE, at, closed=False)

    def _kline(self, name: str, minute: int, at: int, closed: bool) -> str:
        bar, close = self._bar(name, minute, at), self._close_before(name, minute)
        inner = {
            "t": minute,
            "T": minute + MINUTE - 1,
            "s": name,
            "i": "1m",
            "f": bar.first if bar else -1,
            "L": bar.last if bar else -1,
            "o": str(bar.open if bar else close),
            "c": str(bar.close if bar else close),
            "h": str(bar.high if bar else close),
            "l": str(bar.low if bar else close),
            "v": str(bar.volume if bar else 0),
            "n": bar.trades if bar else 0,
            "x": closed,
            "q": str(bar.quote_volume if bar else 0),
            "V": "0",
            "Q": "0",
            "B": "0",
        }
        data = {"e": "kline", "E": at + 3, "s": name, "k": inner}
        return _compact({"stream": f"{name.lower()}@kline_1m", "data": data})

    def _bar(self, name: str, minute: int, at: int) -> Bar | None:
        """The bar of a minute as it stands at a time."""
        times = self._times[name]
        inside = self.markets[name][bisect_right(times, minute - 1) : bisect_right(times, min(minute + MINUTE - 1, at))]
        return bars_of(inside).get(minute)

    def _close_before(self, name: str, minute: int) -> str:
        before = bisect_right(self._times[name], minute - 1)
        return self.markets[name][max(before - 1, 0)].price

    # REST ------------------------------------------------------------------------------------------------------

    def answer(self, path: str, query: dict[str, str]) -> Reply:
        """What REST says now."""
        self.requests.append({"path": path, **query})
        now = self.now()
        date = {"Date": format_datetime(datetime.fromtimestamp(now // 1000, UTC), usegmt=True)}
        if self.replies:
            reply = self.replies.pop(0)
            return Reply(reply.status, reply.body, date | reply.headers, reply.kind)
        if self.coinbase:
            name = path.split("/")[2]
            first, last = (_ms(query[word]) for word in ("start", "end"))
            if (last - first) // MINUTE >= 300:
                body = {"message": "granularity too small for the requested time range. Count exceeds 300"}
                return Reply(400, json.dumps(body), date)
        else:
            name, first, last = query["symbol"], int(query["startTime"]), int(query["endTime"])
        if name not in self.markets:
            said = {"message": "NotFound"} if self.coinbase else {"code": -1121, "msg": "Invalid symbol."}
            return Reply(404 if self.coinbase else 400, json.dumps(said), date)
        first += -first % MINUTE
        minutes = range(max(first, self.begin - self.begin % MINUTE), min(last, now) + 1, MINUTE)
        rows = [row for minute in minutes if (row := self._row(name, minute, now)) is not None]
        rows = rows[::-1] if self.coinbase else rows[:1000]
        return Reply(200, json.dumps(rows), date | {"X-MBX-USED-WEIGHT-1M": "2"})

    def _row(self, name: str, minute: int, now: int) -> list | None:
        bar = self._bar(name, minute, now)
        if self.coinbase:
            return [minute // 1000, bar.low, bar.high, bar.open, bar.close, bar.volume] if bar else None
        close = self._close_before(name, minute)
        prices = [f"{price:.8f}" for price in (bar.open, bar.high, bar.low, bar.close)] if bar else [close] * 4
        volumes = (bar.volume, bar.quote_volume) if bar else (0, 0)
        return [
            minute,
            *prices,
            f"{volumes[0]:.8f}",
            minute + MINUTE - 1,
            f"{volumes[1]:.8f}",
            bar.trades if bar else 0,
            "0.0",
            "0.0",
            "0",
        ]

    # Life ------------------------------------------------------------------------------------------------------

    @property
    def ws(self) -> str:
        """Where the streams are."""
        return f"ws://127.0.0.1:{self.ws_port}"

    @property
    def rest(self) -> str:
        """Where REST is."""
        return f"http://127.0.0.1:{self.rest_port}"

    @contextmanager
    def serving(self) -> Iterator[Exchange]:
        """Both servers, on free ports, until the block ends."""
        ready = threading.Event()
        streams = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), daemon=True)
        rest = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self.answer))
        self.rest_port = rest.server_address[1]
        threading.Thread(target=rest.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        streams.start()
        assert ready.wait(20)
        try:
            yield self
        finally:
            self._stop.set()
            rest.shutdown()
            rest.server_close()
            streams.join(20)

    async def _serve(self, ready: threading.Event) -> None:
        async with serve(self._stream, "127.0.0.1", 0, ping_interval=None, close_timeout=1, compression=None) as server:
            self.ws_port = server.sockets[0].getsockname()[1]
            ready.set()
            while not self._stop.is_set():
                await asyncio.sleep(0.02)


def _disorder(batch: list[str], plan: Plan) -> Iterator[str]:
    if plan.swap:
        batch = [text for at in range(0, len(batch), plan.swap) for text in reversed(batch[at : at + plan.swap])]
    for i, message in enumerate(batch):
        yield message
        if plan.repeat and i % plan.repeat == 0:
            yield message


def _handler(answer: Callable[[str, dict[str, str]], Reply]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            reply = answer(parts.path, {name: values[0] for name, values in parse_qs(parts.query).items()})
            body = reply.body.encode()
            self.send_response_only(reply.status)
            for name, value in {"Content-Type": reply.kind, "Content-Length": str(len(body)), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def _compact(data: dict) -> str:
    return json.dumps(data, separators=(",", ":"))


def _iso(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)
