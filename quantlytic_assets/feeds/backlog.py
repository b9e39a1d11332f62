"""Minutes that a feed could not build: which they are, and asking the venue's REST side for them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import polars as pl

from quantlytic_assets.feeds.background import in_background
from quantlytic_assets.market_data.stream.messages import MINUTE, micros, moment
from quantlytic_assets.universe.models import Dataset
from quantlytic_assets.vendors.policy import Budget, ask_once
from quantlytic_assets.vendors.protocol import BarRequest, Vendor, VendorError

_SECOND = 1_000_000


@dataclass(frozen=True)
class BacklogRules:
    """When minutes are asked for, in seconds of the venue's time.

    A minute is asked for `after` its end. An answer without it is the last word once it is `settled` for so long;
    before, it is asked for again every `again`. After an error nobody is asked for `first_wait`, then twice as long
    each time, up to `longest_wait`; or for as long as the vendor says.
    """

    after: float
    settled: float = 180.0
    again: float = 15.0
    first_wait: float = 5.0
    longest_wait: float = 300.0


class Backlog:
    """The minutes wanted of one dataset. `instruments` are asked for by the vendor's `names`, by symbol.

    `empty_bars`: whether the vendor's bars without a trade are bars here. `budget` counts what is asked, with all else
    that asks this vendor.
    """

    def __init__(
        self,
        dataset: Dataset,
        vendor: Vendor,
        names: Mapping[str, str],
        rules: BacklogRules,
        empty_bars: bool,
        budget: Budget | None = None,
    ):
        self._dataset = dataset
        self._vendor = vendor
        self._names = names
        self._rules = rules
        self._empty_bars = empty_bars
        self._budget = budget
        # By symbol and minute: when, by the venue's time, it may be asked for.
        self._due: dict[str, dict[int, float]] = {}
        self._quiet_until = 0.0
        self._failures = 0

    def __len__(self) -> int:
        return sum(map(len, self._due.values()))

    def want(self, minutes: Iterable[tuple[str, int]]) -> None:
        """Ask for these (symbol, minute) too."""
        for symbol, minute in minutes:
            self._due.setdefault(symbol, {}).setdefault(minute, minute + MINUTE + self._rules.after * _SECOND)

    def drop(self, before: int) -> int:
        """Stop asking for minutes before a time; returns how many there were."""
        dropped = len(self)
        for symbol, minutes in self._due.items():
            self._due[symbol] = {minute: due for minute, due in minutes.items() if minute >= before}
        return dropped - len(self)

    def next_request(self, now: int) -> BarRequest | None:
        """The question that is due at `now`, of those the one with the newest minute; None: there is none."""
        if now < self._quiet_until:
            return None
        ripe = {
            symbol: sorted(minute for minute, due in minutes.items() if due <= now)
            for symbol, minutes in self._due.items()
        }
        newest, symbol = max(((minutes[-1], symbol) for symbol, minutes in ripe.items() if minutes), default=(0, ""))
        if not symbol:
            return None

        def request(oldest: int) -> BarRequest:
            return self._request(symbol, oldest, newest)

        # The oldest minute from which on the vendor answers them all at once.
        minutes = ripe[symbol]
        return request(minutes[bisect_left(minutes, True, key=lambda one: len(self._vendor.parts(request(one))) == 1)])

    def _request(self, symbol: str, oldest: int, newest: int) -> BarRequest:
        return BarRequest(
            dataset=self._dataset.name,
            symbol=symbol,
            interval=self._dataset.interval,
            calendar=self._dataset.calendar,
            start=moment(oldest),
            end=moment(newest + MINUTE),
            name=self._names.get(symbol),
        )

    async def ask(self, request: BarRequest) -> pl.DataFrame:
        """The bars of a request. Raises `VendorError`."""
        return (await in_background(lambda: ask_once(self._vendor, request, budget=self._budget))).bars

    def answered(self, request: BarRequest, bars: pl.DataFrame, now: int) -> pl.DataFrame:
        """Take note of an answer; returns those of its bars that were wanted."""
        self._failures = 0
        waiting = self._due.get(request.symbol, {})
        asked = range(micros(request.start), micros(request.end), MINUTE)
        opened = bars["open_time"].dt.timestamp("us")
        there = set(opened.to_list())
        wanted = bars.filter(opened.is_in([minute for minute in asked if minute in waiting]))
        for minute in asked:
            if minute in there or minute + MINUTE + self._rules.settled * _SECOND <= now:
                waiting.pop(minute, None)
            elif minute in waiting:
                waiting[minute] = now + self._rules.again * _SECOND
        if not self._empty_bars:
            wanted = wanted.filter(pl.col("trade_count").fill_null(1) > 0)
        return wanted

    def failed(self, request: BarRequest, error: VendorError, now: int) -> float:
        """Take note that a request was not answered; returns after how many seconds it is made again.

        What the vendor will not answer for one symbol need not hold the others up.
        """
        if not error.retryable and error.retry_after is None:
            waiting = self._due[request.symbol]
            self._due[request.symbol] = {
                minute: max(due, now + self._rules.longest_wait * _SECOND) for minute, due in waiting.items()
            }
            return self._rules.longest_wait
        wait = min(self._rules.first_wait * 2 ** min(self._failures, 30), self._rules.longest_wait)
        wait = max(wait, error.retry_after or 0.0)
        self._failures += 1
        self._quiet_until = now + wait * _SECOND
        return wait
