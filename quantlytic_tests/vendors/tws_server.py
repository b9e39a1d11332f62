"""A loopback TWS: enough of its socket protocol (as text, versions 157 to 178) for contracts and historical bars.

A frame is four bytes of length and fields that end with NUL each; the first field says what a message is. It keeps
IB's pacing rules by a clock of its own, and goes wrong on demand. Nothing of the package's own code is used.
"""

from __future__ import annotations

import asyncio
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

CONTRACT_FIELDS = (
    "con_id", "symbol", "kind", "expiry", "strike", "right", "multiplier", "exchange", "primary", "currency",
    "local_symbol", "trading_class",
)  # fmt: skip
_SIZES = ("1 secs", "5 secs", "30 secs", "1 min", "5 mins", "15 mins", "30 mins", "1 hour", "1 day")
NO_DEFINITION = "No security definition has been found for the request"
AMBIGUOUS = "The contract description specified for {} is ambiguous."
HISTORY = "Historical Market Data Service error message:"
NO_DATA = f"{HISTORY}HMDS query returned no data: "
PACING = f"{HISTORY}Historical data request pacing violation"


@dataclass(frozen=True)
class Instrument:
    """A contract that is known here."""

    con_id: int
    symbol: str
    kind: str = "STK"
    currency: str = "USD"
    listed: str = "NASDAQ"
    tick: float = 0.01


@dataclass(frozen=True)
class TwsBar:
    """A bar that begins at `start` (UTC). `regular`: within regular hours. Daily bars are told by its date."""

    start: datetime
    open: float
    high: float
    low: float
    close: float
    volume: float
    average: float
    count: int
    regular: bool = True


@dataclass(frozen=True)
class Fault:
    """What happens instead of an answer to a question for bars: an error, silence, half a message, or a cut line."""

    code: int = 0
    text: str = ""
    request_id: int | None = None
    cut: bool = False
    garbage: bool = False


class Client:
    """One connection."""

    def __init__(self, writer: asyncio.StreamWriter):
        self.writer = writer
        self.version = 0
        self.number: int | None = None

    def send(self, *fields: object) -> None:
        data = "".join(f"{field}\0" for field in fields).encode()
        if not self.writer.is_closing():
            self.writer.write(struct.pack(">I", len(data)) + data)

    def error(self, request_id: object, code: int, text: str) -> None:
        self.send(4, 2, request_id, code, text, *([""] if self.version >= 166 else []))


class TwsServer:
    """Serves `bars` by symbol and bar size. `faults` come first, one a question for bars; `clock` is for the pacing.

    `deaf`: connections are taken and never answered. `taken`: client ids that somebody else is connected with.
    """

    def __init__(
        self,
        instruments: Sequence[Instrument] = (),
        bars: dict[tuple[str, str], Sequence[TwsBar]] | None = None,
        version: int = 178,
        now: datetime | None = None,
    ):
        self.instruments = list(instruments)
        self.bars = dict(bars or {})
        self.version = version
        self.now = now
        self.clock = time.monotonic
        self.pacing = True
        self.deaf = False
        self.taken: set[int] = set()
        self.accounts = ["DU1234567"]
        self.faults: list[Fault] = []
        self.requests: list[dict[str, str]] = []
        self.connections = 0
        self.port = 0
        self._asked: list[tuple[float, tuple[str, ...]]] = []
        self._open: list[Client] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    @contextmanager
    def serving(self) -> Iterator[TwsServer]:
        """On a free port of 127.0.0.1 until the block ends."""
        ready, ended = threading.Event(), asyncio.Event()
        loop = asyncio.new_event_loop()

        async def live() -> None:
            server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            self.port = server.sockets[0].getsockname()[1]
            ready.set()
            await ended.wait()
            for client in list(self._open):
                client.writer.transport.abort()
            server.close()

        def run() -> None:
            asyncio.set_event_loop(loop)
            loop.run_until_complete(live())
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()

        thread = threading.Thread(target=run, daemon=True)
        self._loop = loop
        thread.start()
        assert ready.wait(20)
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(ended.set)
            thread.join(20)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = Client(writer)
        self._open.append(client)
        self.connections += 1
        try:
            await self._talk(client, reader)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._open.remove(client)
            writer.close()

    async def _talk(self, client: Client, reader: asyncio.StreamReader) -> None:
        assert await reader.readexactly(4) == b"API\0"
        low, high = (await _frame(reader)).decode().split()[0].lstrip("v").split("..")
        client.version = min(self.version, int(high))
        assert client.version >= int(low)
        if self.deaf:
            await reader.read()
            return
        client.send(client.version, f"{datetime.now(UTC):%Y%m%d %H:%M:%S} UTC")
        while True:
            kind, *fields = (await _frame(reader)).decode().split("\0")[:-1]
            if kind == "71":
                client.number = int(fields[1])
                if client.number in self.taken or any(
                    one is not client and one.number == client.number for one in self._open
                ):
                    client.error(-1, 326, "Unable to connect as the client id is already in use.")
                    await client.writer.drain()
                    return
                self._welcome(client)
            elif client.number is not None:
                answer = self._answers().get(kind)
                if answer is not None:
                    answer(client, fields)

    def _answers(self) -> dict[str, Callable[[Client, list[str]], None]]:
        """What answers a message, by its kind."""
        return {"9": self._details, "20": self._history, "49": self._time, "61": self._positions}

    def _next_id(self, client: Client) -> int:
        """The first order id that is free for a client."""
        return 1

    def _welcome(self, client: Client) -> None:
        client.send(15, 1, ",".join(self.accounts))
        client.send(9, 1, self._next_id(client))
        for farm in (2104, 2106, 2158):
            client.error(-1, farm, f"data farm connection is OK:farm{farm}")

    def _time(self, client: Client, fields: list[str]) -> None:
        client.send(49, 1, int((self.now or datetime.now(UTC)).timestamp()))

    def _positions(self, client: Client, fields: list[str]) -> None:
        client.send(62, 1)

    def _matching(self, wanted: dict[str, str]) -> list[Instrument]:
        return [
            one
            for one in self.instruments
            if (
                one.con_id == int(wanted["con_id"] or 0) or (one.symbol, one.kind) == (wanted["symbol"], wanted["kind"])
            )
            and wanted["currency"] in ("", one.currency)
            and wanted["primary"] in ("", one.listed)
        ]

    def _details(self, client: Client, fields: list[str]) -> None:
        request, wanted = fields[1], dict(zip(CONTRACT_FIELDS, fields[2:14], strict=True))
        found = self._matching(wanted)
        if not found:
            client.error(request, 200, NO_DEFINITION)
            return
        # Versions told the multiplier of sizes first, then which sizes there are.
        old = client.version < 164
        sizes = ["1"] if client.version == 163 else [] if old else ["0.0001", "0.0001", "100"]
        for one in found:
            client.send(
                10, *([8] if old else []), request, one.symbol, one.kind, "", "0", "", wanted["exchange"] or one.listed,
                one.currency, one.symbol, "NMS", "NMS", one.con_id, one.tick, *([100] if old else []), "", "LMT,MKT",
                f"SMART,{one.listed}", 1, 0, f"{one.symbol} INC", one.listed, "", "", "", "", "US/Eastern", "", "", "",
                "", 0, 1, "", "", "26", "", "COMMON", *sizes,
            )  # fmt: skip
        client.send(52, 1, request)

    def _history(self, client: Client, fields: list[str]) -> None:
        request, wanted = fields[0], dict(zip(CONTRACT_FIELDS, fields[1:13], strict=True))
        names = ("end", "size", "duration", "regular", "shows", "format")
        asked = {**wanted, **dict(zip(names, fields[14:20], strict=True))}
        self.requests.append(asked)
        # What goes wrong counts as well.
        too_fast = self.pacing and self._too_fast(tuple(asked.values()))
        if self.faults:
            self._go_wrong(client, request, self.faults.pop(0))
            return
        if too_fast:
            client.error(request, 162, PACING)
            return
        found = self._matching(wanted)
        if not found or len(found) > 1:
            client.error(request, 200, AMBIGUOUS.format(wanted["symbol"]) if found else NO_DEFINITION)
            return
        if asked["size"] not in _SIZES:
            client.error(request, 321, f"Error validating request.-'bK' : cause - bar size is invalid: {asked['size']}")
            return
        if asked["duration"].endswith("D") and int(asked["duration"].split()[0]) > 365:
            client.error(
                request, 321, "Error validating request.-'bK' : cause - longer than 365 days must be made in years"
            )
            return
        shown = self._shown(found[0], asked)
        if not shown:
            client.error(request, 162, f"{NO_DATA}{wanted['symbol']}@{wanted['exchange']} {asked['shows']}")
            return
        daily = asked["size"] == "1 day"
        rows = [
            (
                f"{one.start:%Y%m%d}" if daily else int(one.start.timestamp()),
                *(one.open, one.high, one.low, one.close, one.volume, one.average, one.count),
            )
            for one in shown
        ]
        client.send(17, request, "from", "to", len(rows), *(value for line in rows for value in line))

    def _shown(self, found: Instrument, asked: dict[str, str]) -> list[TwsBar]:
        """The bars before the end; days are counted as days that have bars, seconds by the clock."""
        now = self.now or datetime.now(UTC)
        end = datetime.strptime(asked["end"], "%Y%m%d %H:%M:%S UTC").replace(tzinfo=UTC) if asked["end"] else now
        rows = [
            one
            for one in self.bars.get((found.symbol, asked["size"]), ())
            if one.start < end and (one.regular or asked["regular"] == "0")
        ]
        count, unit = asked["duration"].split()
        if unit == "S":
            return [one for one in rows if one.start >= end - timedelta(seconds=int(count))]
        if unit == "Y":
            return [one for one in rows if one.start >= end - timedelta(days=365 * int(count))]
        days = sorted({one.start.date() for one in rows})[-int(count) :]
        return [one for one in rows if one.start.date() in days]

    def _too_fast(self, question: tuple[str, ...]) -> bool:
        """IB's rules: none twice in 15 s, fewer than six of a contract in 2 s, 60 in ten minutes."""
        now = self.clock()
        lately = [(at, what) for at, what in self._asked if at > now - 600]
        self._asked = [*lately, (now, question)]
        twice = any(what == question and at > now - 15 for at, what in lately)
        of_it = sum(what[:12] == question[:12] and at > now - 2 for at, what in lately)
        return twice or of_it >= 5 or len(lately) >= 60

    @staticmethod
    def _go_wrong(client: Client, request: str, fault: Fault) -> None:
        if fault.cut:
            client.writer.transport.abort()
        elif fault.garbage:
            client.send(17, request, "from", "to", 3, "20250102", "much", "too", "few")
        elif fault.code:
            client.error(request if fault.request_id is None else fault.request_id, fault.code, fault.text)


async def _frame(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(struct.unpack(">I", await reader.readexactly(4))[0])
