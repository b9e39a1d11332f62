"""The vendor `ibkr`: historical bars of Interactive Brokers through a running TWS or IB Gateway.

Nothing is traded here, and each question has a connection of its own, which is closed again: a client id is free for
the next process as soon as one has its answer. Prices of shares are trades, adjusted for splits by IB as of today;
their volume is in shares, unless TWS is set to send it in lots. Bars of currencies are midpoints and have no volume.

A symbol's contract is derived for shares of US exchanges (`BRK.B` is BRK B, in USD) and for pairs that are traded round
the clock (`BTC-USD` is crypto at PAXOS). Others are named in the universe, as `names: {ibkr: STK:VOD/GBP@LSE}`: kind
(STK, CASH, CRYPTO or IND), IB's symbol, currency, and the exchange, which is the primary one for shares.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Awaitable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from importlib import import_module
from types import ModuleType
from typing import Any

import polars as pl

from quantlytic_assets.calendars.daily_bars import with_session_times
from quantlytic_assets.calendars.intervals import INTERVALS
from quantlytic_assets.calendars.sessions import ROUND_THE_CLOCK, calendar_timezone
from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.vendors.finished import finished_bars
from quantlytic_assets.vendors.http import numbers, start_of
from quantlytic_assets.vendors.parts import by_length
from quantlytic_assets.vendors.protocol import BarRequest, Limit, Served, VendorError, VendorTraits
from quantlytic_assets.vendors.session_parts import opens_within_an_hour, parts_of_sessions, sessions_of

_BAR_SIZES = {"1m": "1 min", "5m": "5 mins", "15m": "15 mins", "1h": "1 hour", "1d": "1 day"}
# Answers of about 2,000 bars come within seconds, longer ones may not come at all; a session more is asked for.
_BARS = 1600
_DAY = timedelta(days=1)
_LONGEST_IN_DAYS = 365
_CONNECT_SECONDS = 10.0
_ANSWER_SECONDS = 60.0
_PACING_SECONDS = 15.0

# Beside 2100 to 2199: how old queries end, a short form of an answer, connections restored.
_NOTICES = (165, 366, 399, 1101, 1102, 10167)
_ABOUT_THE_CONNECTION = (100, 326, 502, 503, 504, 507, 1100, 1300)
_NO_SUBSCRIPTION = (354, 420, 10089, 10090, 10168, 10186, 10189)
_MAY_PASS = (100, 322, 502, 504, 507, 1300)

_GRAMMAR = re.compile(
    r"(?:(?P<kind>STK|CASH|CRYPTO|IND):)?(?P<symbol>[A-Z0-9 .]+)"
    r"(?:/(?P<currency>[A-Z]{3}))?(?:@(?P<exchange>[A-Z0-9.]+))?"
)
_NAME_IT = "name its contract in universe.yaml, such as names: {ibkr: STK:VOD/GBP@LSE} or CASH:EUR/USD"


@dataclass(frozen=True)
class IbkrContract:
    """What identifies an instrument at IB; `exchange` is where it is asked for, `primary` where a share is listed."""

    kind: str
    symbol: str
    currency: str
    exchange: str
    primary: str = ""

    @property
    def shows(self) -> str:
        """What its bars are made of, in IB's words."""
        return {"CASH": "MIDPOINT", "CRYPTO": "AGGTRADES"}.get(self.kind, "TRADES")

    @property
    def regular_hours(self) -> bool:
        """Whether there are hours to be kept to."""
        return self.kind in ("STK", "IND")


def ibkr_contract(symbol: str, calendar: str, name: str | None = None) -> IbkrContract | None:
    """The contract of a symbol, by its `name` where there is one; None where there is none to be told."""
    if name is None:
        if calendar == ROUND_THE_CLOCK:
            name = f"CRYPTO:{symbol.replace('-', '/')}" if symbol.count("-") == 1 else ""
        elif calendar_timezone(calendar) == "America/New_York" and "/" not in symbol and "@" not in symbol:
            name = f"STK:{symbol.replace('.', ' ')}"
        else:
            return None
    found = _GRAMMAR.fullmatch(name.upper())
    if found is None:
        return None
    kind, exchange = found["kind"] or "STK", found["exchange"] or ""
    if kind == "STK":
        return IbkrContract(kind, found["symbol"], found["currency"] or "USD", "SMART", exchange)
    if kind == "IND":
        return IbkrContract(kind, found["symbol"], found["currency"] or "USD", exchange) if exchange else None
    if not found["currency"]:
        return None
    return IbkrContract(
        kind, found["symbol"], found["currency"], exchange or {"CASH": "IDEALPRO", "CRYPTO": "PAXOS"}[kind]
    )


class IbkrVendor:
    """See `Vendor`. Where TWS or IB Gateway listens, and as which client; `seconds` an answer may take."""

    name = "ibkr"
    # IB's rules for historical data: 60 in ten minutes, fewer than 6 of one contract in two seconds.
    limits = (Limit(600, 60), Limit(2, 5))
    at_once = 1

    def __init__(self, host: str, port: int, client_id: int, seconds: float = _ANSWER_SECONDS):
        self._host, self._port, self._client_id = host, port, client_id
        self._seconds = seconds
        # TWS knows one connection by our client id at a time.
        self._turn = threading.Lock()

    def traits(self, dataset: str) -> VendorTraits:
        """Minutes without a trade are served, with no volume."""
        return VendorTraits(omits_empty_bars=False, attempts_before_hole=3)

    def weight(self, request: BarRequest) -> int:
        """See `Vendor.weight`."""
        return 1

    def unsupported(self, request: BarRequest) -> str | None:
        """See `Vendor.unsupported`: a symbol without a known contract; hours that would not be what they say."""
        contract = ibkr_contract(request.symbol, request.calendar, request.name)
        if contract is None:
            given = (
                f"{request.name!r} is no contract" if request.name else f"{request.symbol} has no contract of its own"
            )
            return f"{given}: {_NAME_IT}"
        if request.interval == "1h" and contract.regular_hours and opens_within_an_hour(request):
            return (
                f"its hours are cut by the clock, and {request.calendar} does not open at a full hour: ask for 15m bars"
            )
        return None

    def parts(self, request: BarRequest) -> list[BarRequest]:
        """See `Vendor.parts`: as many sessions as come in one answer in good time."""
        if request.calendar == ROUND_THE_CLOCK:
            return by_length(request, max(_DAY, _BARS * INTERVALS[request.interval]))
        return parts_of_sessions(request, _BARS)

    def fetch(self, request: BarRequest) -> Served:
        """See `Vendor.fetch`. vwap and trade_count are there where the bars are trades."""
        unsupported = self.unsupported(request)
        if unsupported is not None:
            raise VendorError(unsupported, retryable=False)
        if len(self.parts(request)) > 1:
            raise VendorError(f"IBKR is asked for {_BARS} bars at once at most", retryable=False)
        contract = ibkr_contract(request.symbol, request.calendar, request.name)
        assert contract is not None, "a symbol without a contract is unsupported"
        with self._turn:
            rows, at = _in_a_loop_of_its_own(self._ask(request, contract))
        return Served(_bars(rows, request, contract, at))

    async def _ask(self, request: BarRequest, contract: IbkrContract) -> tuple[list[Any], datetime]:
        """The rows of an answer, and when it was given, by IB's clock or ours, whichever is behind."""
        library = ibkr_library()
        ib = library.IB()
        ib.RaiseRequestErrors = True
        trouble: asyncio.Future[VendorError | None] = asyncio.get_running_loop().create_future()

        def stop(reason: VendorError | None) -> None:
            if not trouble.done():
                trouble.set_result(reason)

        def heard(request_id: int, code: int, text: str, *_: object) -> None:
            if _concerns_us(request_id, code):
                stop(_meaning(code, text))

        ib.errorEvent += heard
        try:
            await self._connect(library, ib, trouble)
            ib.disconnectedEvent += lambda: stop(VendorError("TWS closed the connection", retryable=True))
            at = await _first(ib.reqCurrentTimeAsync(), trouble, self._seconds)
            end, duration = _reach_back(request, contract, datetime.now(UTC))
            asked = ib.reqHistoricalDataAsync(
                library.Contract(
                    secType=contract.kind,
                    symbol=contract.symbol,
                    currency=contract.currency,
                    exchange=contract.exchange,
                    primaryExchange=contract.primary,
                ),
                endDateTime=end,
                durationStr=duration,
                barSizeSetting=_BAR_SIZES[request.interval],
                whatToShow=contract.shows,
                useRTH=contract.regular_hours,
                formatDate=2,
                timeout=0,
            )
            try:
                rows = list(await _first(asked, trouble, self._seconds))
            except (VendorError, TimeoutError, OSError) as error:
                raise _asked_again_later(self._understood(error)) from None
            return rows, min(datetime.now(UTC), at)
        except _NoBars:
            return [], datetime.now(UTC)
        except (TimeoutError, OSError) as error:
            raise self._understood(error) from None
        finally:
            ib.disconnect()

    def _understood(self, error: VendorError | TimeoutError | OSError) -> VendorError:
        if isinstance(error, TimeoutError):
            return VendorError(f"no answer within {self._seconds:g} s", retryable=True)
        if isinstance(error, OSError):
            return VendorError(f"the connection to TWS broke: {type(error).__name__}", retryable=True)
        return error

    async def _connect(self, library: ModuleType, ib: Any, trouble: asyncio.Future) -> None:
        # Orders, fills and the account are nobody's business here.
        less = {"fetchFields": library.StartupFetch(0)} if hasattr(library, "StartupFetch") else {}
        seconds = min(_CONNECT_SECONDS, self._seconds)
        connecting = ib.connectAsync(self._host, self._port, self._client_id, timeout=seconds, readonly=True, **less)
        try:
            # Who is rejected because of the client id is told so and then left waiting, hence a little longer.
            await _first(connecting, trouble, seconds + 1)
        except (OSError, TimeoutError):
            where = f"{self._host}:{self._port}"
            raise VendorError(
                f"TWS or IB Gateway does not answer on {where}: start it with its API enabled, or set"
                " QUANTLYTIC_IBKR_HOST and QUANTLYTIC_IBKR_PORT (Gateway 4002 paper, 4001 live; TWS 7497, 7496)",
                retryable=True,
            ) from None


class _NoBars(Exception):
    """IB answered that there are none."""


def ibkr_library() -> ModuleType:
    """ib_async, or ib_insync, which it grew from. Loaded in a running loop, because ib_insync looks for one."""
    try:
        return import_module("ib_async")
    except ImportError:
        return import_module("ib_insync")


def _in_a_loop_of_its_own(question: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine, run in a thread of its own: the caller's may have a running loop, or none."""
    with ThreadPoolExecutor(1, thread_name_prefix="ibkr") as pool:
        return pool.submit(asyncio.run, question).result()


async def _first(answer: Awaitable[Any], trouble: asyncio.Future, seconds: float) -> Any:
    """The answer, unless trouble comes first. Raises that, `TimeoutError`, or what the answer raises."""
    task = asyncio.ensure_future(answer)
    await asyncio.wait({task, trouble}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    if not task.done():
        task.cancel()
    # Whatever became of it, nobody else looks.
    result = (await asyncio.gather(task, return_exceptions=True))[0]
    if trouble.done():
        raise trouble.result() or _NoBars
    if isinstance(result, asyncio.CancelledError):
        raise TimeoutError
    if isinstance(result, BaseException):
        raise result
    return result


def _concerns_us(request_id: int, code: int) -> bool:
    """Whether a message ends our question: TWS sends notices the same way, and what happens to its own connections."""
    if code in _NOTICES or 2100 <= code < 2200:
        return False
    return request_id != -1 or code in _ABOUT_THE_CONNECTION


def _meaning(code: int, text: str) -> VendorError | None:
    """What an error of TWS's is to a question; None where it says that there are no bars."""
    said, lower = f"IBKR error {code}: {start_of(text).rstrip('.')}", text.lower()
    if code == 162 and "no data" in lower:
        return None
    if code == 162 and "pacing violation" in lower:
        return VendorError(said, retryable=True, retry_after=_PACING_SECONDS)
    if code in _NO_SUBSCRIPTION or (code == 162 and ("permission" in lower or "subscri" in lower)):
        return VendorError(f"{said}; the account needs a market data subscription for it", retryable=False)
    if code == 162:
        passing = any(
            word in lower for word in ("cancel", "disconnect", "connection", "unavailable", "timed out", "timeout")
        )
        return VendorError(said, retryable=passing)
    if code == 200:
        return VendorError(f"{said}; {_NAME_IT}", retryable=False)
    if code == 326:
        hint = "another program is connected with it; it may pass, or set QUANTLYTIC_IBKR_CLIENT_ID"
        return VendorError(f"{said}; {hint}", retryable=True)
    if code == 1100:
        return VendorError(f"{said}; TWS is there but has no connection to Interactive Brokers", retryable=True)
    if code == 10197:
        return VendorError(f"{said}; the user is logged in elsewhere", retryable=True, retry_after=60.0)
    return VendorError(said, retryable=code in _MAY_PASS)


def _asked_again_later(error: VendorError) -> VendorError:
    """The error of a question that TWS has: the same one within 15 s would break IB's rules, whatever became of it."""
    if not error.retryable or error.retry_after is not None:
        return error
    return VendorError(str(error), True, retry_after=_PACING_SECONDS)


def _reach_back(request: BarRequest, contract: IbkrContract, now: datetime) -> tuple[datetime | str, str]:
    """Where IB shall begin and how far it shall go back, in its words ("" is now), so that all of the request is in it.

    Days are days with trading where there are regular hours. One more is asked for than there should be, because what
    becomes of a running one is not documented; the rest is cut off.
    """
    sessions = sessions_of(request)
    end = request.end
    if request.interval == "1d":
        end += _DAY
    elif contract.regular_hours and not sessions.is_empty():
        end = max(end, sessions["close_time"].max())
    span = min(end, now) - request.start
    begin = end if end < now else ""
    if not contract.regular_hours and request.interval != "1d" and span <= _DAY:
        return begin, f"{max(60, int(span.total_seconds()))} S"
    days = (len(sessions) if contract.regular_hours else span // _DAY + 1) + 1
    if request.interval == "1d":
        days += 1
    return begin, f"{days} D" if days <= _LONGEST_IN_DAYS else f"{-(-span // (_LONGEST_IN_DAYS * _DAY))} Y"


def _bars(rows: list[Any], request: BarRequest, contract: IbkrContract, at: datetime) -> pl.DataFrame:
    """RAW_SCHEMA rows of ib_async's bars, which are labelled by their start, or by their day. -1 stands for nothing."""
    daily = request.interval == "1d"
    # A datetime is a date as well.
    if not all(isinstance(row.date, date) and isinstance(row.date, datetime) != daily for row in rows):
        raise VendorError("the bars' times are not of the kind that was asked for", retryable=False)
    counted = [row.barCount if contract.shows != "MIDPOINT" and row.barCount >= 0 else None for row in rows]
    frame = pl.DataFrame(
        [
            pl.Series("session", [row.date for row in rows], dtype=pl.Date)
            if daily
            else pl.Series("open_time", [row.date.astimezone(UTC) for row in rows], dtype=RAW_SCHEMA["open_time"]),
            *(
                numbers(name, [getattr(row, name) for row in rows])
                for name in ("open", "high", "low", "close", "volume")
            ),
            numbers("vwap", [row.average for row in rows]),
            pl.Series("trade_count", counted, dtype=pl.Int64),
        ]
    )
    if daily:
        around = 2 * _DAY
        near = pl.col("session").is_between((request.start - around).date(), (request.end + around).date())
        frame = with_session_times(frame.filter(near), request.calendar)
    else:
        frame = frame.with_columns((pl.col("open_time") + INTERVALS[request.interval]).alias("close_time"))
    volume = pl.when(pl.col("volume") >= 0).then("volume")
    rows = frame.with_columns(
        volume.alias("volume"), pl.when(volume > 0, pl.col("vwap") > 0).then("vwap").alias("vwap")
    )
    return finished_bars(rows, request, IbkrVendor.name, "split" if contract.kind == "STK" else "none", at)
