"""What a chart of Yahoo's says: bars, splits and dividends, with all the oddities that are known of them.

How it is asked for, and which errors come instead, is in `yahoo`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import polars as pl

from quantlytic_assets.calendars.daily_bars import with_session_times
from quantlytic_assets.calendars.intervals import INTERVALS, TIME
from quantlytic_assets.calendars.sessions import calendar_timezone, expected_bars
from quantlytic_assets.market_data.actions.reconcile import ACTIONS_SCHEMA
from quantlytic_assets.vendors.finished import check_interval, finished_bars
from quantlytic_assets.vendors.http import numbers, whole_numbers
from quantlytic_assets.vendors.protocol import BarRequest, VendorError

VENDOR = "yahoo"
_PRICES = ("open", "high", "low", "close")
_EARLIEST, _LATEST = datetime(1900, 1, 1, tzinfo=UTC).timestamp(), datetime(2100, 1, 1, tzinfo=UTC).timestamp()


class Chart:
    """The one result in the body of an answer to a request. Raises `VendorError` for another shape or interval."""

    def __init__(self, body: Any, request: BarRequest):
        result = _member(_member(body, "chart", dict), "result", list)
        if len(result) != 1 or not isinstance(result[0], dict):
            raise VendorError("the answer is not one chart", retryable=False)
        self._request = request
        self._result = result[0]
        meta = self._result.get("meta")
        self._meta = meta if isinstance(meta, dict) else {}
        granularity = self._meta.get("dataGranularity")
        # Yahoo has two words for an hour.
        check_interval("1h" if granularity == "60m" else granularity, request.interval, request.interval)
        self._quoted = _whole(self._meta.get("regularMarketTime"))

    def daily_bars(self, at: datetime) -> pl.DataFrame:
        """RAW_SCHEMA rows of sessions that are over: a row is the session of its exchange-local date."""
        request = self._request
        rows = self._rows()
        local = pl.col("open_time").dt.convert_time_zone(self._zone()).dt.date()
        placed = with_session_times(
            rows.with_columns(local.alias("session"), pl.col("open_time").alias("stamped")), request.calendar
        ).filter(pl.col("open_time") >= request.start, pl.col("open_time") < request.end, pl.col("close_time") <= at)
        period = self._meta.get("currentTradingPeriod")
        regular = period.get("regular") if isinstance(period, dict) else None
        opened = _whole(regular.get("start")) if isinstance(regular, dict) else None
        live = (
            (pl.col("stamp") == pl.lit(self._quoted, pl.Int64))
            & (pl.col("stamp") == pl.col("stamp").max())
            & (pl.col("stamped") != pl.col("open_time"))
            & (pl.col("stamp") != pl.lit(opened, pl.Int64)).fill_null(True)
        ).fill_null(False)
        bars = placed.filter(~live)
        if bars.is_empty() and len(placed):
            day = placed["session"].max()
            raise VendorError(f"the bar of {day} is not final yet, ask again in some hours", retryable=False)
        return finished_bars(bars, request, VENDOR, "split", at)

    def intraday_bars(self, at: datetime) -> pl.DataFrame:
        """RAW_SCHEMA rows that are over. The last bar of a session ends with it, in New York an hour of half."""
        request = self._request
        rows = self._rows().filter(pl.col("open_time") >= request.start, pl.col("open_time") < request.end)
        days = timedelta(days=2)
        grid = expected_bars(
            request.calendar, request.interval, (request.start - days).date(), (request.end + days).date()
        ).select("open_time", "close_time")
        placed = rows.join(grid, on="open_time", how="left", maintain_order="left")
        live = (
            pl.col("close_time").is_null()
            & (pl.col("stamp") == pl.col("stamp").max())
            & ((pl.col("stamp") == pl.lit(self._quoted, pl.Int64)).fill_null(False) | (pl.col("stamp") % 60 != 0))
        )
        ends = pl.coalesce("close_time", pl.col("open_time") + INTERVALS[request.interval])
        bars = placed.filter(~live).with_columns(ends.alias("close_time"))
        return finished_bars(bars, request, VENDOR, "split", at)

    def actions(self, at: datetime) -> pl.DataFrame:
        """ACTIONS_SCHEMA rows of the chart's events. What is no number or date in them is null, for others to judge."""
        splits, dividends = (self._events(name) for name in ("splits", "dividends"))
        if not splits and not dividends:
            return pl.DataFrame(schema=ACTIONS_SCHEMA)
        new, old = (numbers(name, [event.get(name) for event in splits]) for name in ("numerator", "denominator"))
        amounts = numbers("value", [event.get("amount") for event in dividends])
        reported = pl.DataFrame(
            {
                "kind": ["split"] * len(splits) + ["dividend"] * len(dividends),
                "stamp": pl.Series([_moment(event) for event in splits + dividends], dtype=pl.Int64),
                "value": pl.concat([(new / old).rename("value"), amounts]),
            }
        )
        session = _time(pl.col("stamp")).dt.convert_time_zone(self._zone()).dt.date()
        return (
            reported.with_columns(
                session.alias("session"), pl.when(pl.col("value").is_finite()).then("value").alias("value")
            )
            .with_columns(
                pl.lit(self._request.symbol).alias("symbol"),
                pl.lit(None, pl.String).alias("new_symbol"),
                pl.min_horizontal("session", pl.lit(at.date())).alias("known_on"),
                pl.when(pl.col("kind") == "dividend")
                .then(pl.lit("split"))
                .otherwise(pl.lit("none"))
                .alias("adjustment"),
                pl.lit(VENDOR).alias("vendor"),
                pl.lit(datetime.now(UTC)).cast(TIME).alias("recorded_at"),
            )
            .select(ACTIONS_SCHEMA.names())
            .cast(dict(ACTIONS_SCHEMA))
        )

    def _rows(self) -> pl.DataFrame:
        """stamp, open_time, prices and volume of the rows in and about the request's range, oldest first.

        A row of nothing but nulls says that there was no trade, and is no bar; one of some nulls is for cleaning.
        """
        stamps = self._result.get("timestamp")
        stamps = [] if stamps is None else stamps
        quotes = _member(_member(self._result, "indicators", dict), "quote", list)
        if len(quotes) != 1 or not isinstance(quotes[0], dict) or not isinstance(stamps, list):
            raise VendorError("the answer is not one chart", retryable=False)
        columns = {}
        for name in (*_PRICES, "volume"):
            values = quotes[0].get(name)
            columns[name] = [] if values is None else values
            if not isinstance(columns[name], list) or len(columns[name]) != len(stamps):
                raise VendorError(f"the chart has not one {name} for each time", retryable=True)
        # This reads the values as they came: a value that is no number becomes null only afterwards.
        nothing = [
            pl.Series(f"no_{name}", [value is None or (name == "volume" and value == 0) for value in them], pl.Boolean)
            for name, them in columns.items()
        ]
        values = [numbers(name, them) for name, them in columns.items()]
        around = timedelta(days=3)
        return (
            pl.DataFrame([whole_numbers("timestamp", stamps).alias("stamp"), *values, *nothing])
            .filter(
                ~pl.all_horizontal(series.name for series in nothing),
                pl.col("stamp") >= int((self._request.start - around).timestamp()),
                pl.col("stamp") <= int((self._request.end + around).timestamp()),
            )
            .with_columns(_time(pl.col("stamp")).alias("open_time"))
            .sort("stamp", maintain_order=True)
        )

    def _events(self, name: str) -> list[dict]:
        """The events of a kind, an empty one for each that is none."""
        events = self._result.get("events") or {}
        reported = (events.get(name) or {}) if isinstance(events, dict) else events
        if not isinstance(reported, dict):
            raise VendorError(f"the chart's {name} are not a table of events", retryable=False)
        return [event if isinstance(event, dict) else {} for event in reported.values()]

    def _zone(self) -> str:
        """The exchange's time zone, by the chart where it names one."""
        zone = self._meta.get("exchangeTimezoneName")
        if isinstance(zone, str) and _is_zone(zone):
            return zone
        return calendar_timezone(self._request.calendar)


def _member(body: Any, name: str, kind: type) -> Any:
    inside = body.get(name) if isinstance(body, dict) else None
    if not isinstance(inside, kind):
        raise VendorError("the answer is not one chart", retryable=False)
    return inside


def _whole(value: Any) -> int | None:
    return value if type(value) is int and abs(value) < 1 << 53 else None


def _moment(event: dict) -> int | None:
    """When it happened, in seconds since 1970. The event's key may be the begin of the month instead."""
    stamp = _whole(event.get("date"))
    return stamp if stamp is not None and _EARLIEST < stamp < _LATEST else None


def _time(stamp: pl.Expr) -> pl.Expr:
    return (stamp * 1_000_000).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


@lru_cache(maxsize=64)
def _is_zone(name: str) -> bool:
    try:
        pl.Series([datetime.now(UTC)]).dt.convert_time_zone(name)
    except (pl.exceptions.PolarsError, ValueError):
        return False
    return True
