"""Yahoo's chart endpoint on 127.0.0.1, with made-up bars.

Bars are the same in every run. Answers have the real one's shapes, with its
limits and its faults.

Prices are smooth curves with a little noise, a function of symbol and time alone. Nothing of the package's own code is
used to write what it says; which sessions there are is `exchange_calendars`' word.
"""

from __future__ import annotations

import json
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime
from email.utils import format_datetime
from functools import lru_cache
from typing import Any
from zlib import crc32

import exchange_calendars
import numpy as np
import orjson

from quantlytic_tests.vendors.loopback import Question, Reply, serving

_STEPS = {"1m": 60, "5m": 300, "15m": 900, "1h": 3600, "1d": 0}
_DAY = 86_400
# How far back each interval goes, and how much of 1m one question may ask for, in days.
_LOOK_BACK = {"1m": 30, "5m": 60, "15m": 60, "1h": 730}
_MOST_OF_1M = 8


@dataclass(frozen=True)
class Asked:
    """A question about bars: [start, end] in seconds since 1970 as asked, and what came of it.

    `at`: when, by `time.monotonic`.
    """

    symbol: str
    interval: str
    start: int
    end: int
    status: int
    at: float


class YahooServer:
    """A context manager: `url` is where it is, `requests` what it was asked for.

    `symbols` have bars of every session of `calendar` from `first` to `last`. `limits`: (seconds, questions), beyond
    which the answer is 429, with `retry_after` seconds where given. `latency`: seconds before each answer. `splits` and
    `dividends`: by symbol and ex-date, a split as (new shares, old shares), a dividend as paid; as at Yahoo all history
    is divided by a split from its day on, so that one which happens while the server runs changes what was served.
    `holes`: (symbol, session) without a bar. `replies` come before true answers, one a question. `clock`: seconds since
    1970. `crumb`: asked for where set, with the cookie that `/` gives.
    """

    def __init__(
        self,
        symbols: Collection[str] = (),
        first: date = date(2015, 1, 2),
        last: date = date(2024, 12, 31),
        calendar: str = "XNYS",
        limits: Sequence[tuple[float, int]] = (),
        latency: float = 0.0,
        splits: Mapping[str, Mapping[date, tuple[float, float]]] | None = None,
        dividends: Mapping[str, Mapping[date, float]] | None = None,
        holes: Collection[tuple[str, date]] = (),
        replies: Sequence[Reply] = (),
        clock: Callable[[], float] = time.time,
        retry_after: float | None = None,
        crumb: str | None = None,
    ):
        self.symbols = set(symbols)
        self.first, self.last, self.calendar = first, last, calendar
        self.limits, self.latency, self.retry_after = list(limits), latency, retry_after
        self.splits = {symbol: dict(them) for symbol, them in (splits or {}).items()}
        self.dividends = {symbol: dict(them) for symbol, them in (dividends or {}).items()}
        self.holes = set(holes)
        self.replies = list(replies)
        self.clock = clock
        self.crumb = crumb
        self.requests: list[Asked] = []
        self.questions: list[Question] = []
        self._lock = threading.Lock()
        self._running = ExitStack()
        self.url = ""

    def __enter__(self) -> YahooServer:
        # Before anybody is asked: the first answer should not take longer than the others.
        _sessions(self.calendar, self.first, self.last), _zone(self.calendar)
        self.url = self._running.enter_context(serving(self._answer))
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    @property
    def rejected(self) -> int:
        """How many questions were beyond the limits."""
        return sum(asked.status == 429 for asked in self.requests)

    # Questions -------------------------------------------------------------------------------------------------

    def _answer(self, question: Question) -> Reply:
        if self.latency:
            time.sleep(self.latency)
        with self._lock:
            self.questions.append(question)
            reply = self._reply(question)
            words = question.path.split("/")
            if words[1:4] == ["v8", "finance", "chart"]:
                start, end = (int(question.params.get(name, 0)) for name in ("period1", "period2"))
                interval = question.params.get("interval", "")
                self.requests.append(Asked(words[-1], interval, start, end, reply.status, time.monotonic()))
        date_said = {"Date": format_datetime(datetime.fromtimestamp(self.clock(), UTC), usegmt=True)}
        return Reply(reply.status, reply.body, date_said | dict(reply.headers), reply.kind, reply.cut)

    def _reply(self, question: Question) -> Reply:
        if question.path == "/":
            return Reply(404, "", {"Set-Cookie": "A3=d=made-up; Path=/"}, kind="text/html")
        cookie = "A3=" in question.headers.get("Cookie", "")
        if question.path == "/v1/test/getcrumb":
            return Reply(200, self.crumb or "", kind="text/plain") if cookie else Reply(401, "")
        if self._beyond_limits():
            after = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
            return Reply(429, "Too Many Requests\r\n", after, kind="text/html")
        if self.replies:
            return self.replies.pop(0)
        if self.crumb is not None and not (cookie and question.params.get("crumb") == self.crumb):
            said = {"code": "Unauthorized", "description": "Invalid Crumb"}
            return Reply(401, json.dumps({"finance": {"result": None, "error": said}}))
        return self._chart(question.path.rsplit("/", 1)[-1], question.params)

    def _beyond_limits(self) -> bool:
        now = time.monotonic()
        times = [asked.at for asked in self.requests]
        return any(len(times) - bisect_right(times, now - seconds) >= most for seconds, most in self.limits)

    def _chart(self, symbol: str, params: Mapping[str, str]) -> Reply:
        interval, start, end = params["interval"], int(params["period1"]), int(params["period2"])
        if symbol not in self.symbols:
            return _error(404, "Not Found", "No data found, symbol may be delisted")
        if interval not in _STEPS:
            return _error(422, "Unprocessable Entity", f"Invalid input - interval={interval} is not supported.")
        too_far = _too_far(interval, start, end, self.clock())
        if too_far:
            return _error(422, "Unprocessable Entity", too_far)
        sessions = _sessions(self.calendar, self.first, self.last)
        if end < sessions[0][1]:
            said = f"Data doesn't exist for startDate = {start}, endDate = {end}"
            return _error(400, "Bad Request", said)
        return Reply(200, orjson.dumps(self._body(symbol, interval, start, end), option=orjson.OPT_SERIALIZE_NUMPY))

    # Answers ---------------------------------------------------------------------------------------------------

    def _body(self, symbol: str, interval: str, start: int, end: int) -> dict[str, Any]:
        now = self.clock()
        sessions = _sessions(self.calendar, self.first, self.last)
        opens = [opened for _, opened, _ in sessions]
        begun = bisect_right(opens, now)
        there = [
            one
            for one in sessions[max(0, bisect_left(opens, start) - 1) : min(begun, bisect_right(opens, end))]
            if (symbol, one[0]) not in self.holes
        ]
        rows: list[tuple[int, int]] = []
        for _, opened, closed in there:
            step = _STEPS[interval] or closed - opened
            begins = [at for at in range(opened, closed, step) if start <= at <= end and at < now]
            rows += [(at, min(at + step, closed)) for at in begins]
        quoted = int(min(now, sessions[begun - 1][2] + 1)) if begun else 0
        if rows and rows[-1][1] > now and end > now:
            # The bar that is being made is stamped with the time of the last quote.
            rows[-1] = (quoted, quoted)
        result: dict[str, Any] = {"meta": self._meta(symbol, interval, quoted, begun)}
        if rows:
            result["timestamp"] = [at for at, _ in rows]
        events = self._events(symbol, start, end)
        if events:
            result["events"] = events
        quote = self._quote(symbol, interval, np.array(rows)) if rows else {}
        result["indicators"] = {"quote": [quote]}
        if interval == "1d":
            result["indicators"]["adjclose"] = [{"adjclose": quote["close"]} if rows else {}]
        return {"chart": {"result": [result], "error": None}}

    def _meta(self, symbol: str, interval: str, quoted: int, begun: int) -> dict[str, Any]:
        sessions = _sessions(self.calendar, self.first, self.last)
        _, opened, closed = sessions[max(begun - 1, 0)]
        zone = _zone(self.calendar)
        period = {"timezone": zone, "start": opened, "end": closed, "gmtoffset": 0}
        return {
            "currency": "USD",
            "symbol": symbol,
            "instrumentType": "EQUITY",
            "firstTradeDate": sessions[0][1],
            "regularMarketTime": quoted,
            "exchangeTimezoneName": zone,
            "currentTradingPeriod": {"regular": period},
            "dataGranularity": interval,
        }

    def _quote(self, symbol: str, interval: str, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Bars by their begin and end; a longer one has nothing to do with the shorter ones in it."""
        noise = (rows[:, 0] // 60 * 2_654_435_761 + crc32(f"{symbol} {interval}".encode())) % 2**32
        factor = self._factor(symbol, date.min)
        opened, closed = (np.round(_curve(symbol, rows[:, edge]) / factor, 4) for edge in (0, 1))
        return {
            "open": opened,
            "high": np.round(np.maximum(opened, closed) * (1 + noise % 97 / 1e4), 4),
            "low": np.round(np.minimum(opened, closed) * (1 - noise % 89 / 1e4), 4),
            "close": closed,
            "volume": noise % 1_000_000 + 1_000,
        }

    def _factor(self, symbol: str, day: date) -> float:
        """Shares there are now for one on a day."""
        now = self.clock()
        splits = self.splits.get(symbol, {}).items()
        return float(np.prod([new / old for at, (new, old) in splits if day < at and _midnight(at) <= now]))

    def _events(self, symbol: str, start: int, end: int) -> dict[str, Any]:
        opens = {day: opened for day, opened, _ in _sessions(self.calendar, self.first, self.last)}
        until, now = min(end, self.clock()), self.clock()
        splits = {
            str(opens[day]): {
                "date": opens[day], "numerator": new, "denominator": old, "splitRatio": f"{new:g}:{old:g}",
            }
            for day, (new, old) in self.splits.get(symbol, {}).items()
            if day in opens and start <= opens[day] <= until
        }  # fmt: skip
        dividends = {
            str(opens[day]): {"amount": amount / self._factor(symbol, day), "date": opens[day]}
            for day, amount in self.dividends.get(symbol, {}).items()
            if day in opens and start <= opens[day] <= until and opens[day] <= now
        }
        return {name: them for name, them in (("dividends", dividends), ("splits", splits)) if them}


def _error(status: int, code: str, description: str) -> Reply:
    said = {"code": code, "description": description}
    return Reply(status, json.dumps({"chart": {"result": None, "error": said}}))


def _too_far(interval: str, start: int, end: int, now: float) -> str | None:
    said = f"{interval} data not available for startTime={start} and endTime={end}."
    if interval == "1m" and end - start > _MOST_OF_1M * _DAY:
        return f"{said} Only {_MOST_OF_1M} days worth of 1m granularity data are allowed to be fetched per request."
    days = _LOOK_BACK.get(interval)
    if days is not None and start < now - days * _DAY:
        return f"{said} The requested range must be within the last {days} days."
    return None


def _curve(symbol: str, at: np.ndarray) -> np.ndarray:
    """Prices: two slow waves and a trend, positive at any time."""
    seed = crc32(symbol.encode())
    days = at / _DAY
    waves = 0.2 * np.sin(days / (31 + seed % 17) + seed % 7) + 0.05 * np.sin(days / 3 + seed % 11)
    return (20 + seed % 300) * np.exp(waves + (days - 17_000) / 15_000)


def _midnight(day: date) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()


@lru_cache(maxsize=8)
def _zone(calendar: str) -> str:
    return str(exchange_calendars.get_calendar(calendar, start="2024-01-01", end="2024-12-31").tz)


@lru_cache(maxsize=8)
def _sessions(calendar: str, first: date, last: date) -> list[tuple[date, int, int]]:
    """Each session with its open and close in seconds since 1970, oldest first."""
    known = exchange_calendars.get_calendar(calendar, start=date(first.year, 1, 1), end=date(last.year, 12, 31))
    schedule = known.schedule.loc[first.isoformat() : last.isoformat()]
    times = zip(schedule.index, schedule["open"], schedule["close"], strict=True)
    return [(day.date(), int(opened.timestamp()), int(closed.timestamp())) for day, opened, closed in times]
