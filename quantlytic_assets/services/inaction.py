"""Why a strategy traded in a session, or did not: bar by bar, what it saw and what its account made of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

import polars as pl

from quantlytic_assets.calendars.sessions import assign_sessions, expected_bars, session_table
from quantlytic_assets.schemas.features import BARS
from quantlytic_assets.schemas.vocabulary import CAUSES, DEFECTS
from quantlytic_assets.services.explain import reads, usable
from quantlytic_assets.services.halts import who_halted
from quantlytic_assets.services.inputs import known_through, read_inputs
from quantlytic_assets.services.provenance import archived
from quantlytic_assets.tables.bars import clean_bars, quarantined_bars
from quantlytic_assets.tables.coverage import coverage
from quantlytic_assets.tables.features import indicators, session_bars
from quantlytic_assets.tables.signals import session_signals
from quantlytic_assets.tables.whole_rows import feature_columns
from quantlytic_assets.trading.account_tables import engine_events
from quantlytic_assets.trading.standing import DecidedBar, SymbolRecord, Verdict, verdict
from quantlytic_assets.universe.membership import members

if TYPE_CHECKING:
    from quantlytic_assets.resources import Resources
    from quantlytic_assets.storage.accounts import StoredAccount
    from quantlytic_assets.universe.models import Dataset, Strategy

_DAY = timedelta(days=1)


@dataclass(frozen=True)
class BarAnswer:
    """What became of one bar of a symbol. Times are UTC; flags are those of its clean bars."""

    symbol: str
    open_time: datetime
    close_time: datetime
    verdict: Verdict
    flags: tuple[str, ...] = ()
    signal: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class SessionAnswer:
    """What became of a session. `answers`: by symbol and time. `why`: where the session as a whole has no bars."""

    strategy: str
    session: date
    traded_through: datetime | None
    answers: list[BarAnswer]
    why: str | None = None


def session_at(dataset: Dataset, time: datetime) -> date | None:
    """The session of a dataset that a time (UTC) belongs to; None where the calendar does not know its year."""
    return assign_sessions(pl.DataFrame({"open_time": [time]}), dataset.calendar)["session"][0]


def explain_session(
    resources: Resources,
    dataset: Dataset,
    strategy: Strategy,
    session: date,
    symbols: Sequence[str],
    at: datetime | None = None,
) -> SessionAnswer:
    """Why a strategy traded or did not trade each of its symbols at each bar of a session.

    at: only at the bar that is open at this time (UTC), or the last one before it.
    """
    stored = resources.accounts.last(strategy.name)
    through = stored.through if stored else None
    if session_table(dataset.calendar, session, session).is_empty():
        return SessionAnswer(strategy.name, session, through, [], _no_session(dataset, session))
    told = _Told(resources, dataset, strategy, session, stored)
    expected = expected_bars(dataset.calendar, strategy.interval, session, session)
    there = {one.symbol for one in members(dataset, session)}
    answers: list[BarAnswer] = []
    for symbol in symbols:
        seen = _Seen(told, symbol)
        times = dict(expected.select("open_time", "close_time").iter_rows()) | seen.times
        chosen = _chosen(times, at)
        if symbol in there:
            answers += [seen.answer(one, times[one]) for one in chosen]
            continue
        why = Verdict("not_in_universe", f"{symbol} does not belong to {dataset.name} on {session}")
        answers += [BarAnswer(symbol, opened, times[opened], why) for opened in chosen]
    return SessionAnswer(strategy.name, session, through, answers)


def _chosen(times: Mapping[datetime, datetime], at: datetime | None) -> list[datetime]:
    """The open times in their order; with a time only the last one that is not after it, else the first."""
    ordered = sorted(times)
    if at is None or not ordered:
        return ordered
    return [max((one for one in ordered if one <= at), default=ordered[0])]


def _no_session(dataset: Dataset, day: date) -> str:
    before = session_table(dataset.calendar, day - timedelta(days=14), day)["session"]
    near = f"; the last session before it is {before[-1]}" if len(before) else ""
    return f"{dataset.calendar} has no session on {day}{near}"


class _Told:
    """What the lake and the account say of a session, read once for all symbols of a strategy."""

    def __init__(
        self,
        resources: Resources,
        dataset: Dataset,
        strategy: Strategy,
        session: date,
        stored: StoredAccount | None,
    ):
        lake, name, before, symbols = resources.lake, dataset.name, session + _DAY, strategy.symbols
        self.resources, self.dataset, self.strategy, self.session = resources, dataset, strategy, session
        self.stored = stored
        self.begins: date | None = resources.accounts.sessions(strategy.name)["session"].min()
        self.rows = resources.accounts.events(strategy.name)
        self.events = engine_events(self.rows)
        self.bars = session_bars(lake, name, strategy.interval, session, symbols)
        # Bars that open together are decided on when the last of them is available.
        together = usable(self.bars, dataset).group_by("open_time").agg(pl.col("available_at").max())
        self.available: dict[datetime, datetime] = dict(together.iter_rows())
        self.signals = session_signals(lake, strategy.name, session)
        known = feature_columns(lake)
        columns = ["symbol", "open_time", *(one for one in reads(strategy).columns if one in known)]
        read = {"since": session, "before": before}
        self.features = indicators(lake, name, strategy.interval, columns, symbols=symbols, **read)
        self.clean = clean_bars(lake, name, ("symbol", "open_time", "flags"), symbols=symbols, **read)
        holes = ("symbol", "missing_ranges", "attempts")
        self.coverage = coverage(lake, name, holes, since=session, before=before)
        self.rejected = quarantined_bars(lake, name, symbols, session, before)
        # As the rule reads them: null where a model has predicted nothing.
        inputs = read_inputs(lake, strategy, session, before)
        if inputs is not None:
            self.features = self.features.join(inputs, on=["symbol", "open_time"], how="left")
        self.known_through = known_through(lake, strategy, before)


class _Seen:
    """What a strategy saw of one symbol, and what its account made of that."""

    def __init__(self, told: _Told, symbol: str):
        self._told, self._symbol = told, symbol
        self._bars = _by_time(told.bars.filter(symbol=symbol))
        self._signals = _by_time(told.signals.filter(symbol=symbol))
        self._features = _by_time(told.features.filter(symbol=symbol).drop("symbol"))
        self._clean = told.clean.filter(symbol=symbol)
        self._rejected = told.rejected.filter(symbol=symbol)
        covered = told.coverage.filter(symbol=symbol)
        self._coverage = covered.row(0, named=True) if len(covered) else None
        self._record = SymbolRecord(told.events, symbol, told.session)
        self._late_events = told.events.filter(kind="seen_late", symbol=symbol)

    @property
    def times(self) -> dict[datetime, datetime]:
        """Open and close time of the symbol's rows of features.bars."""
        return {opened: row["close_time"] for opened, row in self._bars.items()}

    def answer(self, opened: datetime, closed: datetime) -> BarAnswer:
        """What became of the bar [opened, closed)."""
        within = _within(self._clean, opened, closed)
        flags = tuple(sorted({flag for row in within["flags"].to_list() for flag in row}))
        signal, bar = self._signals.get(opened), self._bars.get(opened)
        found = self._no_bar(opened, closed) if bar is None else self._unusable(bar, opened, closed, flags)
        if found is None:
            available = self._told.available[opened]
            found = self._untraded(opened) or self._late(opened, closed, available)
            found = found or self._decided(DecidedBar(self._symbol, self._told.session, opened, closed, available))
        return BarAnswer(self._symbol, opened, closed, found, flags, signal)

    def _decided(self, bar: DecidedBar) -> Verdict:
        strategy = self._told.strategy
        band, bot = strategy.settings.rebalance_band, strategy.bar_by_bar
        standing = self._record.at(bar)
        found = verdict(standing, self._signals.get(bar.open_time), band, bot)
        if found.code == "halted" and standing.halt is not None:
            accounts = self._told.resources.accounts
            asked = who_halted(accounts, strategy.name, standing.halt["event_time"])
            return replace(found, text=f"{found.text}; {asked}") if asked else found
        if found.code != "hold":
            return found
        nothing = [name for name, value in self._features.get(bar.open_time, {}).items() if value is None]
        return replace(found, text=f"{found.text}; not defined yet: {', '.join(nothing)}") if nothing else found

    def _unusable(
        self, bar: Mapping[str, Any], opened: datetime, closed: datetime, flags: tuple[str, ...]
    ) -> Verdict | None:
        """Why a bar could not be decided on; None where it could."""
        keeps = self._told.dataset.incomplete_bars == "keep"
        wrong = [flag for flag in flags if flag in DEFECTS]
        if wrong and (bar["close"] is None or not (bar["complete"] or keeps)):
            why = "; ".join(f"{flag}: {DEFECTS[flag]}" for flag in wrong)
            return Verdict("flagged_bar", f"the bar's price is known to be wrong, and it is not decided on. {why}")
        if bar["complete"] or (keeps and bar["close"] is not None):
            return None
        return Verdict(
            "incomplete_bar", f"the bar is not complete, and it is not decided on: {self._holes(opened, closed)}"
        )

    def _no_bar(self, opened: datetime, closed: datetime) -> Verdict:
        # The quarantine has a row as it was archived, and a daily bar may be stamped with any hour of its day.
        daily = self._told.dataset.interval == "1d"
        rejected = self._rejected if daily else _within(self._rejected, opened, closed)
        if len(rejected):
            row = rejected.row(0, named=True)
            text = f"the bar was rejected as {row['reason']} ({row['source_object']} row {row['source_row']})"
            return Verdict("no_bar", text)
        if len(_within(self._clean, opened, closed)):
            text = f"clean.bars has the bar, {BARS.name} not yet; run: quantlytic backfill {self._told.dataset.name}"
            return Verdict("no_bar", text)
        return Verdict("no_bar", f"there is no bar: {self._holes(opened, closed)}")

    def _holes(self, opened: datetime, closed: datetime) -> str:
        """What is missing of [opened, closed), by the causes that coverage gives."""
        if self._coverage is None:
            return f"nobody has looked at the session yet; run: quantlytic backfill {self._told.dataset.name}"
        causes = dict.fromkeys(
            one["cause"] for one in self._coverage["missing_ranges"] if one["start"] < closed and one["end"] > opened
        )
        if not causes:
            return "no native bar of it is missing; it has not ended, or its price is not known"
        asked = f" (attempts: {self._coverage['attempts']})" if self._coverage["attempts"] else ""
        return "; ".join(f"{cause}: {CAUSES[cause].rstrip('.')}" for cause in causes) + asked

    def _untraded(self, opened: datetime) -> Verdict | None:
        """Why the account was not traded on a bar at all; None where it went through its time."""
        name, stored = self._told.strategy.name, self._told.stored
        known = self._told.known_through
        if (stored is None or opened > stored.through) and (known is None or opened > known):
            text = f"the bar waits for its model's prediction, or its members' signals; run: quantlytic backfill {name}"
            return Verdict("inputs_missing", text)
        if stored is None:
            return Verdict("not_traded_yet", f"trading.events has nothing of {name}; run: quantlytic backfill {name}")
        if opened > stored.through:
            through = f"{stored.through:%Y-%m-%d %H:%M}"
            text = f"the account has been traded through the bar of {through}; run: quantlytic backfill {name}"
            return Verdict("not_traded_yet", text)
        begins = self._told.begins
        if begins is not None and self._told.session < begins:
            text = f"the account begins with {begins}; quantlytic backfill {name} --restart trades the past anew"
            return Verdict("before_account", text)
        return None

    def _late(self, opened: datetime, closed: datetime, available: datetime) -> Verdict | None:
        """Whether the bar came after its time was traded: an event says that bars did, the archive says which."""
        late = self._late_events.filter(pl.col("event_time") > opened)
        if late.is_empty():
            return None
        first = _within(self._first_records, opened, closed)["fetched_at"].max()
        # When this time had been traded at the latest.
        traded = self._told.rows.filter(pl.col("event_time") >= available)["recorded_at"].min()
        if first is None or traded is None or first <= traded:
            return None
        text = f"the bar was fetched {first:%Y-%m-%d %H:%M:%S}, after its time had been traded: seen late, not traded"
        return Verdict("seen_late", text, events=(int(late["seq"][0]),))

    @cached_property
    def _first_records(self) -> pl.DataFrame:
        """open_time and fetched_at of the first record of each bar: what was fetched again was there before."""
        told = self._told
        records = archived(told.resources, told.dataset, self._symbol, told.session)
        return records.group_by(pl.col("bar").alias("open_time")).agg(pl.col("fetched_at").min())


def _by_time(rows: pl.DataFrame) -> dict[datetime, dict[str, Any]]:
    """The rows of one symbol by their open time."""
    return {row["open_time"]: row for row in rows.iter_rows(named=True)}


def _within(rows: pl.DataFrame, opened: datetime, closed: datetime) -> pl.DataFrame:
    return rows.filter(pl.col("open_time").is_between(opened, closed, closed="left"))
