"""Orders of the live path: an account goes on bar by bar, by the function that the asset of paper trades calls.

A bar is traded once, whoever comes first: the step that trades it is claimed in the state database. Without `--trade`
the same happens to a copy of the account in memory, which nobody else sees.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl

from quantlytic_assets.calendars.intervals import TIME
from quantlytic_assets.calendars.sessions import session_table
from quantlytic_assets.live.bars import Bar
from quantlytic_assets.live.deciding import indicator_frame
from quantlytic_assets.live.lines import Lines, Row
from quantlytic_assets.market_data.stream.messages import micros, moment
from quantlytic_assets.schemas.features import BARS
from quantlytic_assets.services.deciding import trader_of
from quantlytic_assets.services.history import read_history
from quantlytic_assets.services.paper_account import AtBroker, Books, advance, fresh_times, sendable_times
from quantlytic_assets.trading.backtest.history import History
from quantlytic_assets.trading.engine import codes as c
from quantlytic_assets.trading.engine.market import ACTIONS_SCHEMA, BARS_SCHEMA

if TYPE_CHECKING:
    import sqlalchemy as sa

    from quantlytic_assets.storage.accounts import Request, StoredAccount
    from quantlytic_assets.storage.broker_ledger import BrokerLedger
    from quantlytic_assets.storage.lake import Lake
    from quantlytic_assets.universe.models import Dataset, Strategy

_DAY = timedelta(days=1)


class Rehearsal:
    """An account that goes on in memory from where the real one stands; see `Books`."""

    def __init__(self, real: Books):
        self._real = real
        self._last: StoredAccount | None = None
        # Those of the last session, and of orders that still work.
        self._events: pl.DataFrame | None = None
        self._sessions: dict[date, pl.DataFrame] = {}

    def last(self, strategy: str) -> StoredAccount | None:
        """See `Books.last`."""
        return self._last or self._real.last(strategy)

    def events(self, strategy: str, since: date | None = None, before: date | None = None) -> pl.DataFrame:
        """See `Books.events`."""
        told = self._real.events(strategy, since, before)
        if self._events is None:
            return told
        session = pl.col("session")
        wanted = [session >= since] if since is not None else []
        wanted += [session < before] if before is not None else []
        own = self._events.filter(*wanted) if wanted else self._events
        return pl.concat([told, own.select(told.columns).cast(told.schema)]) if len(own) else told

    def sessions(self, strategy: str, since: date | None = None, before: date | None = None) -> pl.DataFrame:
        """See `Books.sessions`."""
        told = self._real.sessions(strategy, since, before)
        own = [one for day, one in sorted(self._sessions.items()) if since is None or day >= since]
        kept = told.filter(~pl.col("session").is_in(list(self._sessions)))
        return pl.concat([kept, *(one.select(kept.columns).cast(kept.schema) for one in own)]) if own else kept

    def requests(self, strategy: str | None = None, *, pending: bool = False) -> list[Request]:
        """See `Books.requests`: what people ask is of the real account."""
        return []

    def advance(
        self,
        strategy: str,
        before: StoredAccount | None,
        after: StoredAccount,
        events: pl.DataFrame,
        sessions: pl.DataFrame,
        taken: Mapping[int, datetime],
        also: Callable[[sa.Connection], None] | None = None,
    ) -> bool:
        """See `Books.advance`; nothing is written for a broker."""
        self._last = after
        if len(events):
            told = [pl.lit(strategy).alias("strategy"), pl.lit(moment(0)).cast(TIME).alias("recorded_at")]
            own = events.with_columns(told)
            kept = own if self._events is None else pl.concat([self._events, own])
            if before is not None:
                kept = kept.filter(pl.col("session") >= min(after.oldest_open, before.session))
            self._events = kept
        self._sessions |= {day: rows for (day,), rows in sessions.partition_by("session", as_dict=True).items()}
        return True


class Desk:
    """What trades one strategy as its bars come. `begin` is called before the first.

    books: the accounts, or a rehearsal of them. report: is told what a person should know. ledger: where orders are
    written that a broker fills; None for the simulated one and for a rehearsal. clock: seconds since 1970.
    """

    def __init__(
        self,
        dataset: Dataset,
        strategy: Strategy,
        books: Books,
        lake: Lake,
        report: Callable[[str], None],
        ledger: BrokerLedger | None = None,
        clock: Callable[[], float] = time.time,
    ):
        self._ledger = ledger
        self._clock = clock
        self.strategy = strategy
        self._dataset = dataset
        self._books = books
        self._lake = lake
        self._report = report
        # Bars of the session in which the account stands, and those that came since they were put together.
        self._known = BARS_SCHEMA.to_frame()
        self._new: list[Bar] = []
        self._actions = ACTIONS_SCHEMA.to_frame()
        self._lot = 1.0
        self._begins: int | None = None
        self._waits = False

    def begin(self, lines: Lines) -> None:
        """Take up the bars of the session in which the account stands."""
        stored = self._books.last(self.strategy.name)
        history = None
        if self._lake.has_table(BARS.name):
            history = read_history(self._lake, self._dataset, self.strategy, None, stored.session if stored else None)
        if history is not None:
            self._actions, self._lot = history.actions, history.lot
        if stored is None:
            return
        if history is not None:
            self._known = history.bars.select(BARS_SCHEMA.names()).cast(dict(BARS_SCHEMA))
        for symbol in self.strategy.symbols:
            self._new += [bar for bar in lines.kept(symbol) if bar.session >= stored.session]

    def untraded(self, lines: Lines) -> list[Row]:
        """The rows of times at which the account has not traded; none of an account that has not begun."""
        stored = self._books.last(self.strategy.name)
        return [] if stored is None else lines.rows(micros(stored.through) + 1, self.strategy.symbols)

    def trade(
        self, lines: Lines, changed: Sequence[Row], wants: Callable[[str, int], tuple[float | None] | None] | None
    ) -> pl.DataFrame:
        """Trade what is new; the columns of trading.events that were written.

        changed: the rows that are new or others. wants: what the rule wants of a symbol at a time, alone in a tuple,
        None where it has not said; None of a bot.
        """
        none = self._books.events(self.strategy.name, date.max)
        wanted = set(self.strategy.symbols)
        own = [row for row in changed if row.bar.symbol in wanted]
        if not own:
            return none
        self._new += [row.bar for row in own]
        stored = self._books.last(self.strategy.name)
        if stored is None and self._begins is None:
            self._begins = min(row.bar.open_time for row in own)
        through = micros(stored.through) if stored else (self._begins or 0) - 1
        first = stored.session if stored else date.min
        untraded = pl.col("open_time") > moment(through)
        self._put_together(pl.col("session") >= first if stored else untraded)
        market = self._history().market(self.strategy.symbols)
        now = moment(max(row.bar.available_at for row in own))
        fresh, stale, at_broker = fresh_times(market, stored, now), slice(0, 0), None
        if self._ledger is not None:
            at_broker = AtBroker(self._ledger, self._dataset, datetime.fromtimestamp(self._clock(), UTC))
            fresh, stale = sendable_times(market, fresh, stored, self._dataset, self.strategy, at_broker.now)
        rows = {(row.bar.symbol, row.bar.open_time): row for row in lines.rows(through + 1, self.strategy.symbols)}
        rows |= {(row.bar.symbol, row.bar.open_time): row for row in own if row.bar.open_time > through}
        fresh_bars = self._known.filter(untraded).select("symbol", pl.col("open_time").to_physical()).rows()
        said = {} if wants is None else {key: one for key in fresh_bars if (one := wants(*key)) is not None}
        decided = {time for _, time in (rows if wants is None else said)}
        times = market.times[fresh, c.OPENS].tolist()
        if fresh.start >= fresh.stop or not self._knows(times, decided, stored):
            return none
        weights = pl.DataFrame(
            [(symbol, time, weight) for (symbol, time), (weight,) in said.items()],
            schema={"symbol": pl.String, "open_time": pl.Int64, "weight": pl.Float64}, orient="row",
        ).with_columns(pl.col("open_time").cast(TIME))  # fmt: skip
        frame = indicator_frame(list(rows.values()), lines.columns)
        decides = trader_of(self.strategy, market, weights, frame, stored.bot if stored else None, stale)
        done = advance(self._books, self.strategy, market, fresh, stored, decides, {}, at_broker)
        if not done.bars:
            # Fills were taken in meanwhile, or somebody else traded: decide from how the account stands now.
            return self.trade(lines, changed, wants)
        if not done.events:
            return none
        since = min(market.sessions[fresh.start], first) if stored else market.sessions[fresh.start]
        after = stored.events if stored else 0
        return self._books.events(self.strategy.name, since).filter(pl.col("seq") > after)

    def _knows(self, times: Sequence[int], decided: set[int], stored: StoredAccount | None) -> bool:
        """Whether it is known what was decided at each of these times; the graph has to trade what came before."""
        unknown = [time for time in times if time not in decided]
        if unknown and not self._waits:
            self._report(
                f"{self.strategy.name} waits: its account stands at {stored.through if stored else 'its beginning'}, "
                f"and what was decided at {moment(unknown[0])} is not known here; "
                f"run: quantlytic backfill {self.strategy.name}"
            )
        self._waits = bool(unknown)
        return not unknown

    def _put_together(self, wanted: pl.Expr) -> None:
        """Add the new bars to those that are known, of which they take the place, and keep those that are wanted."""
        new = pl.DataFrame(
            [one[:10] for one in self._new],
            schema={name: pl.Int64 if kind == TIME else kind for name, kind in BARS_SCHEMA.items()},
            orient="row",
        ).cast(dict(BARS_SCHEMA))
        self._new = []
        self._known = (
            pl.concat([self._known, new])
            .unique(["symbol", "open_time"], keep="last")
            .filter(wanted)
            .sort("symbol", "open_time")
        )

    def _history(self) -> History:
        days = self._known["session"]
        table = session_table(self._dataset.calendar, days.min(), days.max() + _DAY)
        closes = dict(table.select("session", "close_time").iter_rows())
        return History(self._known, self._actions, closes, self._lot)
