"""A loopback Alpha Vantage: `/query` with a key, its shapes, its plans, and its way of saying no under status 200."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from email.utils import format_datetime
from pathlib import Path

from quantlytic_tests.vendors.loopback import Question, Reply, serving

RECORDINGS = Path(__file__).parent / "recordings"
KEY = "QX7TESTKEY42ABCD"
_COMPACT = 100
_PREMIUM = "You may subscribe to any of the premium plans at https://www.alphavantage.co/premium/"
DAY_IS_USED_UP = (
    f"We have detected your API key as {KEY} and our standard API rate limit is 25 requests per day. Please subscribe"
    " to any of the premium plans at https://www.alphavantage.co/premium/ to instantly remove all daily rate limits."
)
TOO_FAST = (
    "Thank you for using Alpha Vantage! Please consider spreading out your free API requests more sparingly (1 request"
    " per second). You may subscribe to any of the premium plans to lift the free key rate limit (25 requests per day)."
)


@dataclass(frozen=True)
class Row:
    """A bar as it is told: `label` in New York's time without a zone, a date for daily bars."""

    label: datetime | date
    open: float
    high: float
    low: float
    close: float
    volume: int

    @property
    def text(self) -> str:
        """The label as the vendor writes it."""
        return self.label.isoformat(" ") if isinstance(self.label, datetime) else self.label.isoformat()


def row(label: datetime | date, price: float = 100.0) -> Row:
    """A plausible bar."""
    return Row(label, price, price + 1, price - 1, price + 0.5, 1000)


@dataclass
class AlphaVantageServer:
    """Serves `series` by symbol and the vendor's interval (`daily`, `5min` …); `replies` come first, one a question.

    `now` is what its Date header says; `per_day` how many questions a key has.
    """

    series: dict[tuple[str, str], Sequence[Row]]
    premium: bool = False
    now: datetime = datetime(2026, 11, 20, 22, tzinfo=UTC)
    per_day: int = 25
    replies: list[Reply] = field(default_factory=list)
    requests: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    @contextmanager
    def serving(self) -> Iterator[AlphaVantageServer]:
        """On a free port until the block ends."""
        with serving(self._answer) as self.url:
            yield self

    def _answer(self, question: Question) -> Reply:
        assert question.path == "/query"
        asked = dict(question.params)
        self.requests.append(asked)
        stamp = {"Date": format_datetime(self.now, usegmt=True)}
        if self.replies:
            told = self.replies.pop(0)
            return Reply(told.status, told.body, stamp | dict(told.headers), told.kind, told.cut)
        return Reply(200, json.dumps(self._body(asked), indent=4), stamp)

    def _body(self, asked: dict[str, str]) -> dict:
        if asked.get("apikey") != KEY:
            return {"Error Message": "the parameter apikey is invalid or missing. Please claim your free API key."}
        if len(self.requests) > self.per_day:
            return {"Information": DAY_IS_USED_UP}
        function = asked["function"]
        daily = function == "TIME_SERIES_DAILY"
        if not daily and not self.premium:
            return {"Information": f"Thank you for using Alpha Vantage! This is a premium endpoint. {_PREMIUM}"}
        full = asked.get("outputsize") == "full"
        if full and not self.premium:
            return {"Information": f"The outputsize=full parameter value is a premium feature. {_PREMIUM}"}
        interval = "daily" if daily else asked["interval"]
        rows = self.series.get((asked["symbol"], interval))
        if rows is None:
            return {"Error Message": f"Invalid API call. Please retry or visit the documentation for {function}."}
        newest_first = sorted(rows, key=lambda one: one.text, reverse=True)
        if "month" in asked:
            newest_first = [one for one in newest_first if one.text.startswith(asked["month"])]
        shown = newest_first if full else newest_first[:_COMPACT]
        about = {
            "1. Information": "Daily Prices (open, high, low, close) and Volumes"
            if daily
            else f"Intraday ({interval})",
            "2. Symbol": asked["symbol"],
            "3. Last Refreshed": newest_first[0].text if newest_first else "",
            **({} if daily else {"4. Interval": interval}),
            f"{4 if daily else 5}. Output Size": "Full size" if full else "Compact",
            f"{5 if daily else 6}. Time Zone": "US/Eastern",
        }
        name = "Time Series (Daily)" if daily else f"Time Series ({interval})"
        return {"Meta Data": about, name: {one.text: _told(one) for one in shown}}


def _told(one: Row) -> dict[str, str]:
    return {
        "1. open": f"{one.open:.4f}",
        "2. high": f"{one.high:.4f}",
        "3. low": f"{one.low:.4f}",
        "4. close": f"{one.close:.4f}",
        "5. volume": str(one.volume),
    }
