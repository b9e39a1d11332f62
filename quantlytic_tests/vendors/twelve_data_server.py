"""A loopback Twelve Data: `/time_series` with a key, its shapes, its credits, and its errors under status 200."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from zoneinfo import ZoneInfo

from quantlytic_tests.vendors.loopback import Question, Reply, serving

KEY = "0123456789abcdef0123456789abcdef"
_INTERVALS = ("1min", "5min", "15min", "30min", "45min", "1h", "2h", "4h", "8h", "1day", "1week", "1month")
NO_DATA = "No data is available on the specified dates. Try setting different start/end dates."


@dataclass(frozen=True)
class Row:
    """A bar that begins at `start` (UTC); of a daily one the date is what is told."""

    start: datetime
    open: float
    high: float
    low: float
    close: float
    volume: int | None = 1000


def row(start: datetime, price: float = 100.0, volume: int | None = 1000) -> Row:
    """A plausible bar."""
    return Row(start, price, price + 1, price - 1, price + 0.5, volume)


@dataclass
class TwelveDataServer:
    """Serves `series` by symbol and the vendor's interval; `replies` come first, one a question.

    `now` is what its Date header says. `per_minute`, `per_day`: credits. `under_200`: errors come with status 200.
    `inclusive`: whether a bar at the end of a range is in the answer.
    """

    series: dict[tuple[str, str], Sequence[Row]]
    zone: str = "America/New_York"
    now: datetime = datetime(2026, 11, 20, 22, 0, 20, tzinfo=UTC)
    per_minute: int = 8
    per_day: int = 800
    under_200: bool = True
    inclusive: bool = True
    replies: list[Reply] = field(default_factory=list)
    requests: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    url: str = ""

    @contextmanager
    def serving(self) -> Iterator[TwelveDataServer]:
        """On a free port until the block ends."""
        with serving(self._answer) as self.url:
            yield self

    def _answer(self, question: Question) -> Reply:
        self.paths.append(question.path)
        self.requests.append(dict(question.params))
        stamp = {"Date": format_datetime(self.now, usegmt=True)}
        if self.replies:
            told = self.replies.pop(0)
            return Reply(told.status, told.body, stamp | dict(told.headers), told.kind, told.cut)
        body = self._body(question)
        status = body["code"] if "code" in body and not self.under_200 else 200
        return Reply(status, json.dumps(body), stamp)

    def _body(self, question: Question) -> dict:
        asked = question.params
        if question.headers.get("Authorization") != f"apikey {KEY}":
            return error(401, "**apikey** parameter is incorrect or not specified.")
        if len(self.requests) > self.per_day:
            said = f"{self.per_day} API credits were used, with the current limit being {self.per_day}."
            return error(429, f"You have run out of API credits for the day. {said}")
        if len(self.requests) > self.per_minute:
            said = f"{len(self.requests)} API credits were used, with the current limit being {self.per_minute}."
            return error(429, f"You have run out of API credits for the current minute. {said}")
        if asked["interval"] not in _INTERVALS:
            return error(400, f"Invalid **interval** provided: {asked['interval']}.")
        rows = self.series.get((asked["symbol"], asked["interval"]))
        if rows is None:
            return error(404, "**symbol** or **figi** parameter is missing or invalid. Please provide a valid symbol.")
        # Days are the exchange's, and no time zone is heeded for them.
        daily = asked["interval"] == "1day"
        zone = ZoneInfo(self.zone if daily else asked.get("timezone", self.zone))
        first, last = (datetime.fromisoformat(asked[name]).replace(tzinfo=zone) for name in ("start_date", "end_date"))
        told = {one.start.astimezone(zone).replace(hour=0, minute=0) if daily else one.start: one for one in rows}
        shown = [at for at in sorted(told) if first <= at < last or (self.inclusive and at == last)]
        if not shown:
            return error(400, NO_DATA)
        shown = shown[-int(asked.get("outputsize", "5000")) :]
        if asked.get("order", "DESC").upper() == "DESC":
            shown.reverse()
        form = "%Y-%m-%d" if daily else "%Y-%m-%d %H:%M:%S"
        meta = {"symbol": asked["symbol"], "interval": asked["interval"], "currency": "USD", "type": "Common Stock"}
        values = [{"datetime": f"{at.astimezone(zone):{form}}", **_told(told[at])} for at in shown]
        return {"meta": meta | {"exchange_timezone": self.zone}, "values": values, "status": "ok"}


def error(code: int, message: str) -> dict:
    """What the vendor says instead of bars."""
    return {"code": code, "message": message, "status": "error"}


def _told(one: Row) -> dict[str, str]:
    prices = {name: f"{getattr(one, name):.5f}" for name in ("open", "high", "low", "close")}
    return prices if one.volume is None else {**prices, "volume": str(one.volume)}
