"""What is to be done about each hole: the same for the gap sensor, for alerts and for `quantlytic gaps`.

What is missing is said by clean.coverage and the universe, what was asked in vain by the log of attempts. Everything
but `decide` is pure. When a hole is asked for is the sensor's business.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from typing import TYPE_CHECKING, Protocol

import polars as pl

from quantlytic_assets.calendars.intervals import INTERVALS
from quantlytic_assets.calendars.sessions import session_table
from quantlytic_assets.market_data.quality.retention import first_kept
from quantlytic_assets.tables.coverage import coverage
from quantlytic_assets.universe.membership import symbol_sessions
from quantlytic_assets.vendors.protocol import BarRequest

if TYPE_CHECKING:
    from quantlytic_assets.resources import Resources
    from quantlytic_assets.storage.lake import Lake
    from quantlytic_assets.universe.models import Dataset
    from quantlytic_assets.vendors.protocol import Vendor

# Decision on the holes of a symbol's session → what will be done about it.
DECISIONS: dict[str, str] = {
    "ask": "asked by {dataset}_gap_sensor where it is switched on, or now by `quantlytic backfill {dataset}`",
    "vendor_hole": "nothing: the vendors don't have it; `quantlytic backfill {dataset} --force` asks again",
    "known_outage": "nothing: the venue was down, says the universe's list of outages",
    "outage": "nothing: the whole venue lacks it, and a vendor was asked",
    "no_trade": "nothing: the vendor serves no bar without a trade",
    "not_served": "nothing: no vendor serves it; `quantlytic backfill {dataset} --dry-run` says why",
    "no_vendor": "nothing by itself: the dataset has no vendor; `quantlytic import` brings a file",
    "replay": "published by `quantlytic replay {dataset}`; `quantlytic backfill {dataset} --force` asks the vendors",
    "running": "nothing yet: the session is not over",
    "expired": "nothing: the session is older than the dataset keeps",
}

# A symbol's silence of so many bars in a row may be our own feed's: a vendor is asked about it once.
_LONG_SILENCE = 60
# What deciding on holes needs of clean.coverage.
COVERAGE_COLUMNS = ("symbol", "session", "expected_bars", "missing_bars", "missing_ranges", "checked_at")


class Attempted(Protocol):
    """What must be known of a vendor to tell what is still worth asking."""

    @property
    def attempts_before_hole(self) -> int:
        """After how many answers without a bar it counts as a hole of the vendor's."""
        ...


def decide(resources: Resources, dataset: Dataset, now: datetime, covered: pl.DataFrame | None = None) -> pl.DataFrame:
    """`decisions` on what the lake, the log of attempts and the vendors' reach say at this moment.

    covered: `coverage_rows` of the dataset, where the caller has them already.
    """
    wanted = wanted_pairs(dataset, now)
    if covered is None:
        covered = coverage_rows(resources.lake, dataset.name)
    # Attempts are looked up where bars are missing only.
    holes = covered.filter(pl.col("missing_bars") > 0)["session"]
    span = (holes.min(), holes.max()) if len(holes) else (date.max, date.min)
    attempts = resources.attempts.read(dataset.name, *span)
    traits = resources.traits(dataset)
    decided = decisions(dataset, wanted, covered, attempts, traits, now)
    vendors = [resources.vendor(name) for name in dataset.vendors]
    names = {one.symbol: one.names for one in dataset.symbols}
    return with_not_served(decided, partial(_has, dataset, vendors, names))


def coverage_rows(lake: Lake, dataset: str, after: int | None = None) -> pl.DataFrame:
    """COVERAGE_COLUMNS of a dataset's coverage: of the rows that snapshots later than `after` brought, or of all."""
    return coverage(lake, dataset, COVERAGE_COLUMNS, after_snapshot=after)


def wanted_pairs(dataset: Dataset, now: datetime) -> pl.DataFrame:
    """Each symbol's sessions by `now` (aware), expired ones included: symbol, session, closed_at, bars, kept (Boolean).

    `closed_at` (UTC): when its last bar can be had, the dataset's delay included.
    """
    last = min(dataset.last_session or date.max, now.date() + timedelta(days=1))
    sessions = (
        session_table(dataset.calendar, dataset.first_session, last)
        .filter(pl.col("open_time") <= now)
        .select(
            "session",
            (pl.col("close_time") + pl.lit(dataset.delay, pl.Duration("us"))).alias("closed_at"),
            _bars_of_session(dataset.interval).alias("bars"),
            (pl.col("session") >= first_kept(dataset, now.date())).alias("kept"),
        )
    )
    return symbol_sessions(dataset, sessions)


def _bars_of_session(interval: str) -> pl.Expr:
    if interval == "1d":
        return pl.lit(1, pl.Int64)
    pause = (pl.col("break_end") - pl.col("break_start")).fill_null(timedelta(0))
    length = (pl.col("close_time") - pl.col("open_time") - pause).dt.total_seconds()
    return (length / INTERVALS[interval].total_seconds()).ceil().cast(pl.Int64)


def decisions(
    dataset: Dataset,
    wanted: pl.DataFrame,
    covered: pl.DataFrame,
    attempts: pl.DataFrame,
    traits: Attempted | None,
    now: datetime,
) -> pl.DataFrame:
    """What is to be done about each symbol's session that has holes, or that nobody has looked at since it was over.

    `wanted`: `wanted_pairs`; `covered`: symbol, session, missing_bars, expected_bars, missing_ranges, checked_at of
    clean.coverage; `attempts`: `AttemptLog.read`; `traits`: of its vendors. Rows: symbol, session, decision, bars
    (missing), whole (Boolean: all of the session's are), holes (ranges), looked_at (Boolean).
    """
    pairs = wanted.join(covered, on=["symbol", "session"], how="left")
    closed = pl.col("closed_at") <= now
    # Coverage of a session that was still running counts its first part only.
    fresh = (pl.col("checked_at") >= pl.col("closed_at")).fill_null(False)
    looked_at = pl.col("checked_at").is_not_null() & (fresh | ~closed)
    ranges = _range_decisions(dataset, pairs.filter(looked_at), attempts, traits)
    # No session is over with nothing expected, so that what was not looked at is never taken for complete.
    decided = (
        pairs.with_columns(looked_at.alias("looked_at"))
        .filter(~pl.col("looked_at") | (pl.col("missing_bars") > 0))
        .join(ranges, on=["symbol", "session"], how="left")
    )
    open_ask = "ask" if dataset.vendors else "no_vendor"
    return decided.select(
        "symbol",
        "session",
        pl.when(~pl.col("kept"))
        .then(pl.lit("expired"))
        .when(~closed)
        .then(pl.lit("running"))
        .when(pl.col("session") >= (dataset.replay_from or date.max))
        .then(pl.lit("replay"))
        .otherwise(pl.coalesce("decision", pl.lit(open_ask)))
        .alias("decision"),
        pl.when("looked_at").then("missing_bars").otherwise("bars").alias("bars"),
        (~pl.col("looked_at") | (pl.col("missing_bars") == pl.col("expected_bars"))).alias("whole"),
        pl.col("holes").fill_null(1),
        "looked_at",
    ).sort("session", "symbol")


def _range_decisions(
    dataset: Dataset, looked_at: pl.DataFrame, attempts: pl.DataFrame, traits: Attempted | None
) -> pl.DataFrame:
    """symbol, session, decision, holes: `ask` where any range is worth it, else what holds for most missing bars."""
    ranges = (
        looked_at.select("symbol", "session", "missing_ranges")
        .explode("missing_ranges")
        .drop_nulls("missing_ranges")
        .unnest("missing_ranges")
        .join(attempts.select("symbol", "session", "answered"), on=["symbol", "session"], how="left")
        .with_columns(
            pl.col("answered").fill_null(0),
            ((pl.col("end") - pl.col("start")).dt.total_seconds() / INTERVALS[dataset.interval].total_seconds())
            .ceil()
            .alias("length"),
        )
    )
    register = [(pl.col("start") >= one.start) & (pl.col("end") <= one.end) for one in dataset.outages]
    never = pl.col("answered") == 0
    silent = pl.col("length") >= _LONG_SILENCE
    if dataset.vendors and traits is not None:
        # Whatever coverage said when there were fewer vendors.
        hole = pl.col("answered") >= traits.attempts_before_hole
        rest = "ask"
    else:
        hole, never, rest = pl.lit(False), pl.lit(False), "no_vendor"
    rules = [
        ("known_outage", pl.any_horizontal(register) if register else pl.lit(False)),
        ("outage", (pl.col("cause") == "outage") & ~never),
        ("no_trade", (pl.col("cause") == "no_trade") & ~(never & silent)),
        ("vendor_hole", hole),
        (rest, pl.lit(True)),
    ]
    decided = ranges.with_columns(
        pl.coalesce(pl.when(rule).then(pl.lit(name)) for name, rule in rules).alias("decision")
    )
    return (
        decided.group_by("symbol", "session", "decision")
        .agg(pl.col("length").sum(), pl.len().cast(pl.Int64).alias("ranges"))
        .sort(pl.col("decision") == "ask", "length", "decision", descending=[True, True, False])
        .group_by("symbol", "session", maintain_order=True)
        .agg(pl.col("decision").first(), pl.col("ranges").sum().alias("holes"))
    )


def with_not_served(decided: pl.DataFrame, served: Callable[[str, date], bool]) -> pl.DataFrame:
    """`decisions` where sessions that no vendor has are not to be asked for.

    served: whether any vendor has a symbol's session, known without asking. Vendors have bars from some day on, so that
    not every session has to be looked at.
    """
    asking = decided.filter(decision="ask").group_by("symbol").agg(pl.col("session").sort())
    reach = []
    for symbol, sessions in asking.iter_rows():
        first = bisect_left(sessions, True, key=lambda day: served(symbol, day))
        reach.append((symbol, sessions[first] if first < len(sessions) else date.max))
    since = pl.DataFrame(reach, schema={"symbol": pl.String, "since": pl.Date}, orient="row")
    beyond = (pl.col("decision") == "ask") & (pl.col("session") < pl.col("since"))
    return (
        decided.join(since, on="symbol", how="left", maintain_order="left")
        .with_columns(pl.when(beyond).then(pl.lit("not_served")).otherwise("decision").alias("decision"))
        .drop("since")
    )


def _has(
    dataset: Dataset, vendors: list[Vendor], names: Mapping[str, Mapping[str, str]], symbol: str, day: date
) -> bool:
    """Whether any vendor has some of a symbol's session, as far as that is known without asking."""
    whole = session_request(dataset, symbol, day, day)
    return any(
        vendor.unsupported(part) is None
        for vendor in vendors
        for part in vendor.parts(replace(whole, name=names[symbol].get(vendor.name)))
    )


def session_request(dataset: Dataset, symbol: str, first: date, last: date) -> BarRequest:
    """The question for a symbol's bars of the sessions `first` to `last`, both included."""
    start, end = (datetime.combine(day, time(), UTC) for day in (first, last + timedelta(days=1)))
    return BarRequest(dataset.name, symbol, dataset.interval, dataset.calendar, start, end)
