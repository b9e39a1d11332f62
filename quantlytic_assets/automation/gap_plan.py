"""What a gap sensor asks for next, and why it lets the other holes be: pure, so that each turn can be tried by itself.

What is missing is told by clean.coverage and the universe, what was asked in vain by the log of attempts; the memory
only keeps a hole that stays one from being asked for again at once.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Protocol

import polars as pl

from quantlytic_assets.calendars.intervals import INTERVALS
from quantlytic_assets.calendars.sessions import session_table
from quantlytic_assets.market_data.quality.retention import first_kept
from quantlytic_assets.universe.membership import symbol_sessions
from quantlytic_assets.universe.models import Dataset

# Verdict on the holes of a symbol's session → what will be done about it.
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
# Before a hole that stayed one is asked for again: four times as long after each try, up to the second figure.
_FIRST_WAIT, _LONGEST_WAIT = 900.0, 86_400.0
# So much of a vendor's limits at once: bars are in the tables before the next run asks for more.
_MOST_WEIGHT = 1_000

_ASKED_SCHEMA = pl.Schema(
    {"partition": pl.String, "symbol": pl.String, "through": pl.Date, "tries": pl.Int64, "at": pl.Float64}
)


class Attempted(Protocol):
    """What must be known of a vendor to tell what is still worth asking."""

    attempts_before_hole: int


@dataclass(frozen=True)
class Asked:
    """A sensor's memory, _ASKED_SCHEMA: holes that were asked for, through which session, how often, when last."""

    holes: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=_ASKED_SCHEMA))

    def to_json(self) -> str:
        """The cursor: symbols that were asked for together stand together."""
        together = (
            self.holes.group_by("partition", "through", "tries", "at")
            .agg(pl.col("symbol").sort())
            .sort("partition", "at", "through", "tries")
        )
        return json.dumps(
            [[row[0], row[1].isoformat(), row[2], row[3], row[4]] for row in together.iter_rows()],
            separators=(",", ":"),
        )

    @classmethod
    def from_json(cls, cursor: str | None) -> Asked:
        """A cursor read back."""
        rows = [
            (partition, symbol, date.fromisoformat(through), tries, at)
            for partition, through, tries, at, symbols in json.loads(cursor or "[]")
            for symbol in symbols
        ]
        return cls(pl.DataFrame(rows, schema=_ASKED_SCHEMA, orient="row"))


@dataclass(frozen=True)
class Request:
    """Partitions [first, last], both inclusive, and the symbols to ask for in them. `pairs`: symbols' sessions with

    holes among them; `weight`: what asking counts against the vendor's limits, about.
    """

    first: str
    last: str
    symbols: tuple[str, ...]
    pairs: int
    weight: int


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


def next_request(
    asked: Asked,
    decided: pl.DataFrame,
    keys: Sequence[str],
    now: float,
    cost: Callable[[str, date, date], int],
    allowance: int | None = None,
    most_partitions: int = 250,
) -> tuple[Request | None, Asked]:
    """The oldest holes that are worth asking for, in neighbouring partitions, and the memory to keep.

    decided: `decisions` with the key of each row's `partition`; keys: all partition keys, oldest first; now: seconds
    since 1970; cost: what asking for a symbol's sessions (first, last) counts against the vendor's limits; allowance:
    what those have room for, None for as much as one likes. To be called while no run is at work.
    """
    # What is not to be asked for any more is forgotten.
    asking = decided.filter(decision="ask")
    known = asked.holes.join(asking.select("partition", "symbol").unique(), on=["partition", "symbol"], how="semi")
    wait = (_FIRST_WAIT * 4.0 ** (pl.col("tries") - 1).clip(0, 8)).clip(0, _LONGEST_WAIT)
    placed = decided.join(known, on=["partition", "symbol"], how="left").with_columns(
        ((pl.col("decision") == "ask") & (pl.col("session") <= pl.col("through")) & (pl.col("at") + wait > now))
        .fill_null(False)
        .alias("waiting")
    )
    due = placed.filter(pl.col("decision") == "ask", ~pl.col("waiting"), pl.col("partition").is_in(list(keys)))
    if due.is_empty():
        return None, Asked(known)
    # Fetching itself doesn't ask for a vendor's holes and known outages; the others that are not due are kept out here.
    quiet = pl.col("decision").is_in(["ask", "vendor_hole", "known_outage"])
    left = placed.filter(~quiet | pl.col("waiting"))
    limit = min(_MOST_WEIGHT, allowance if allowance is not None else _MOST_WEIGHT)
    chosen, symbols, weight = _choose(due, left, keys, limit, cost, most_partitions)
    taken = due.filter(pl.col("partition").is_in(chosen), pl.col("symbol").is_in(symbols))
    request = Request(chosen[0], chosen[-1], tuple(symbols), len(taken), weight)
    return request, Asked(_remember(known, taken, now))


def _choose(
    due: pl.DataFrame,
    left: pl.DataFrame,
    keys: Sequence[str],
    limit: int,
    cost: Callable[[str, date, date], int],
    most_partitions: int,
) -> tuple[list[str], list[str], int]:
    """Neighbouring partitions from the oldest due one on, the symbols, and the weight of asking for them."""
    stretches = _stretches(due, cost)
    kept_out = {key: set(symbols) for key, symbols in left.group_by("partition").agg("symbol").iter_rows()}
    begin = keys.index(due["partition"].min())
    chosen: list[str] = []
    wanted: dict[str, _Stretch] = {}
    weight = 0
    for key in keys[begin : begin + most_partitions]:
        together = {*wanted, *stretches.get(key, {})}
        if key not in stretches or (chosen and any(kept_out.get(one, set()) & together for one in (*chosen, key))):
            break
        grown = wanted | {symbol: one.after(wanted.get(symbol)) for symbol, one in stretches[key].items()}
        if chosen:
            more = sum(one.weight(symbol, cost) for symbol, one in grown.items())
            if more > limit:
                break
            chosen, wanted, weight = [*chosen, key], grown, more
            continue
        chosen = [key]
        for symbol, one in sorted(grown.items()):
            more = weight + one.weight(symbol, cost)
            if wanted and more > limit:
                return chosen, sorted(wanted), weight
            wanted[symbol], weight = one, more
    return chosen, sorted(wanted), weight


@dataclass(frozen=True)
class _Stretch:
    """What is to be asked for of a symbol: the span of its sessions that are missing whole, and the others' weight."""

    first: date | None
    last: date | None
    parts: int

    def after(self, before: _Stretch | None) -> _Stretch:
        """Both together."""
        if before is None:
            return self
        return _Stretch(before.first or self.first, self.last or before.last, before.parts + self.parts)

    def weight(self, symbol: str, cost: Callable[[str, date, date], int]) -> int:
        """What asking counts."""
        whole = cost(symbol, self.first, self.last) if self.first is not None and self.last is not None else 0
        return whole + self.parts


def _stretches(due: pl.DataFrame, cost: Callable[[str, date, date], int]) -> dict[str, dict[str, _Stretch]]:
    """By partition and symbol."""
    grouped = (
        due.group_by("partition", "symbol")
        .agg(
            pl.col("session").filter("whole").min().alias("first"),
            pl.col("session").filter("whole").max().alias("last"),
            pl.col("holes").filter(~pl.col("whole")).sum().alias("holes"),
            (~pl.col("whole")).sum().alias("sessions"),
            pl.col("session").max().alias("newest"),
        )
        .sort("partition", "symbol")
    )
    found: dict[str, dict[str, _Stretch]] = {}
    for partition, symbol, first, last, holes, sessions, newest in grouped.iter_rows():
        # A hole may be as long as its session: at least what that would count.
        parts = max(holes, sessions * cost(symbol, newest, newest)) if sessions else 0
        found.setdefault(partition, {})[symbol] = _Stretch(first, last, parts)
    return found


def _remember(known: pl.DataFrame, taken: pl.DataFrame, now: float) -> pl.DataFrame:
    new = (
        taken.group_by("partition", "symbol")
        .agg(
            pl.col("session").max().alias("through"),
            # A hole that came later begins anew.
            pl.when(pl.col("session") <= pl.col("through")).then("tries").otherwise(0).max().alias("tries"),
        )
        .select(
            "partition",
            "symbol",
            "through",
            (pl.col("tries") + 1).cast(pl.Int64),
            pl.lit(now, pl.Float64).alias("at"),
        )
    )
    before = known.join(new, on=["partition", "symbol"], how="anti")
    return pl.concat([before, new]).sort("partition", "symbol")
