"""Trading a strategy on paper, by its rule or its bot: from where its account stands, bar by bar, each bar once.

The engine is the one of backtests. What happened is on record in the state database (`storage.accounts`); tables of the
lake are a copy of it. A step goes on from the last bar that was traded, whatever sessions are asked for: partition by
partition, all at once, or a bar at a time give the same events. Bars that come for a time that was traded before are
seen late: an event says so, and they are not traded. What people ask of an account (`services.halts`) is part of the
step with whose bars it takes effect.

Where a broker fills the orders the same step decides, and the orders are written for the broker with it; the account
changes with what the broker reports (`services.broker_account`). Bars whose orders could not be sent any more are
looked at and not traded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

import numpy as np
import polars as pl

from quantlytic_assets.calendars.sessions import ROUND_THE_CLOCK
from quantlytic_assets.schemas.features import BARS
from quantlytic_assets.schemas.trading import BROKER_ORDERS, EVENTS
from quantlytic_assets.services.broker_account import (
    beside_reductions,
    check_broker,
    costs_of,
    held_in,
    last_closes,
    orders_for_broker,
    sendable_until,
    settle_reports,
)
from quantlytic_assets.services.broker_comparison import broker_order_rows
from quantlytic_assets.services.deciding import Trader, average_true_range, trader
from quantlytic_assets.services.halts import due
from quantlytic_assets.services.history import COIN_LOT, read_history
from quantlytic_assets.services.inputs import known_through
from quantlytic_assets.services.old_accounts import taken_over
from quantlytic_assets.storage.accounts import Accounts, Request, StoredAccount
from quantlytic_assets.tables.predictions import model_versions
from quantlytic_assets.trading.account_tables import (
    engine_events,
    equity_rows,
    event_rows,
    fill_rows,
    order_rows,
    position_rows,
    session_row,
    sessions_frame,
)
from quantlytic_assets.trading.engine import codes as c
from quantlytic_assets.trading.engine import projections
from quantlytic_assets.trading.engine.events import Events, to_frame
from quantlytic_assets.trading.engine.market import micros
from quantlytic_assets.trading.engine.requests import Requests
from quantlytic_assets.trading.engine.state import State
from quantlytic_assets.universe.models import ModelStrategy

if TYPE_CHECKING:
    import sqlalchemy as sa

    from quantlytic_assets.storage.broker_ledger import BrokerLedger
    from quantlytic_assets.storage.lake import Lake
    from quantlytic_assets.trading.engine.market import Market
    from quantlytic_assets.universe.models import Dataset, Strategy

_DAY = timedelta(days=1)
# How long a time waits for the bars of symbols that had one at the time before.
_WAIT = timedelta(minutes=15)
# Orders at a broker are compared with simulated fills again for so long, for bars can be late.
_COMPARED_AGAIN = timedelta(days=10)
# How old a range may be that an exit is placed by: no exchange is closed for longer.
_RANGES_WITHIN = timedelta(days=14)


@dataclass(frozen=True)
class Trades:
    """What a call did: bars traded (times), events written, fills among them, and bars that were seen late."""

    strategy: str
    bars: int = 0
    events: int = 0
    fills: int = 0
    late: int = 0


def trade(
    lake: Lake,
    accounts: Accounts,
    dataset: Dataset,
    strategy: Strategy,
    first: date,
    before: date,
    now: datetime | None = None,
    ledger: BrokerLedger | None = None,
) -> Trades:
    """Trade what was not traded of the sessions up to `before`, and copy the sessions from `first` on into the lake.

    An account begins with the first session that is asked for; one at a broker, whose orders are written to `ledger`,
    with the first bar whose orders can still be sent. Raises `OtherBroker` for an account of another broker,
    `NoSignals` for features that were never computed, `RuleError` where the rule or bot fails or a bot keeps what can't
    be stored, and `LostAccount` for an account of an older version that is gone.
    """
    now = now or datetime.now(UTC)
    if not strategy.at_broker:
        ledger = None
        stored = accounts.last(strategy.name) or taken_over(lake, accounts, dataset, strategy)
    else:
        assert ledger is not None, "orders for a broker are written to its ledger"
        settle_account(lake, accounts, ledger, dataset, strategy, now)
        stored = accounts.last(strategy.name)
    check_broker(strategy, stored)
    # From a session that was traded already: of what came late since then is taken note.
    start = min(first, stored.session) if stored else first
    history = read_history(lake, dataset, strategy, before - _DAY, start) if start < before else None
    done = Trades(strategy.name)
    if history is not None:
        market = history.market(strategy.symbols)
        fresh = fresh_times(market, stored, now)
        fresh = _known(market, fresh, known_through(lake, strategy, before))
        stale = slice(fresh.start, fresh.start)
        if ledger is not None:
            fresh, stale = sendable_times(market, fresh, stored, dataset, strategy, now)
        if fresh.start < fresh.stop:
            since, kept = market.sessions[fresh.start], stored.bot if stored else None
            decides = trader(lake, strategy, market, since, before, kept, stale)
            models: Mapping[date, str] = {}
            if isinstance(strategy, ModelStrategy):
                models = model_versions(lake, strategy.name, since=since, before=before)
            at_broker = None if ledger is None else AtBroker(ledger, dataset, now)
            done = advance(accounts, strategy, market, fresh, stored, decides, models, at_broker)
    publish(lake, accounts, strategy.name, min([first, *([stored.oldest_open] if stored else [])]))
    if ledger is not None:
        publish_broker_orders(lake, ledger, dataset, strategy)
    return done


class Books(Protocol):
    """What is on record of accounts, as `storage.accounts.Accounts` keeps it."""

    def last(self, strategy: str) -> StoredAccount | None:
        """Where the account goes on from; None before its first bar."""

    def events(self, strategy: str, since: date | None = None, before: date | None = None) -> pl.DataFrame:
        """Columns of trading.events of the sessions [since, before), in their order."""

    def sessions(self, strategy: str, since: date | None = None, before: date | None = None) -> pl.DataFrame:
        """ACCOUNT_SESSIONS_SCHEMA of the sessions [since, before), oldest first."""

    def requests(self, strategy: str | None = None, *, pending: bool = False) -> list[Request]:
        """What was asked of an account, in its order."""

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
        """Writes a step, in one transaction with what `also` writes; False where another process was quicker."""


@dataclass(frozen=True)
class AtBroker:
    """What a step needs whose orders a broker fills: where they are written, of which dataset, and the time (UTC)."""

    ledger: BrokerLedger
    dataset: Dataset
    now: datetime


def settle_account(
    lake: Lake, accounts: Accounts, ledger: BrokerLedger, dataset: Dataset, strategy: Strategy, now: datetime
) -> int:
    """Take into the account what its broker has reported; returns how many events that were."""
    stored = accounts.last(strategy.name)
    if stored is None:
        return 0
    lot = 1.0 if dataset.calendar != ROUND_THE_CLOCK else COIN_LOT
    static = np.zeros((c.STATIC_FIELDS, len(strategy.symbols)))
    static[c.LOT] = lot
    atr = None
    if strategy.settings.exits.atr_stop is not None and lake.has_table(BARS.name):
        atr = _newest_ranges(lake, dataset, strategy, stored.session)
    return settle_reports(accounts, ledger, strategy, dataset, static, now, atr)


def _newest_ranges(lake: Lake, dataset: Dataset, strategy: Strategy, session: date) -> np.ndarray | None:
    """The newest ATR of each symbol: of an earlier session where the lake is behind, as on the live path."""
    since = session - _RANGES_WITHIN
    history = read_history(lake, dataset, strategy, session, since)
    if history is None:
        return None
    ranges = average_true_range(lake, strategy, history.market(strategy.symbols), since, session + _DAY)
    if ranges is None or not len(ranges):
        return None
    return pl.DataFrame(ranges).fill_nan(None).fill_null(strategy="forward").to_numpy()[-1]


def publish_broker_orders(lake: Lake, ledger: BrokerLedger, dataset: Dataset, strategy: Strategy) -> None:
    """Copy the orders of the last weeks, and of all that are not over, into trading.broker_orders."""
    orders = ledger.orders(strategy.broker, strategy=strategy.name)
    if not orders:
        return
    open_ones = [one.session for one in orders if not one.told]
    since = min([*open_ones, orders[-1].session - _COMPARED_AGAIN])
    recent = [one for one in orders if one.session >= since]
    # On a live path the graph may not have made a bar yet.
    history = read_history(lake, dataset, strategy, None, since) if lake.has_table(BARS.name) else None
    market = None if history is None else history.market(strategy.symbols)
    rows = broker_order_rows(recent, ledger.fills([one.client_order_id for one in recent]), market, strategy.settings)
    mine, parameters = "strategy = ? AND session >= ?", [strategy.name, since]
    lake.replace([(BROKER_ORDERS.name, mine, parameters, rows)])


def publish(lake: Lake, accounts: Accounts, strategy: str, since: date) -> None:
    """Copy what is on record of an account from a session on into the tables of the lake."""
    rows = accounts.events(strategy, since)
    told = engine_events(rows)
    # Of orders whose first event is among them: since then nothing changed the others.
    orders = projections.orders(told)
    sessions = accounts.sessions(strategy, since)
    mine, parameters = "strategy = ? AND session >= ?", [strategy, since]
    tables = {
        EVENTS.name: rows,
        "trading.orders": order_rows(rows, orders, sessions),
        "trading.fills": fill_rows(told, orders),
        "trading.positions": position_rows(strategy, sessions),
        "trading.equity": equity_rows(strategy, sessions),
    }
    lake.replace([(table, mine, parameters, frame) for table, frame in tables.items()])


def fresh_times(market: Market, stored: StoredAccount | None, now: datetime) -> slice:
    """The times that were not traded and can be: the newest one waits a while for symbols that it lacks."""
    opens = market.times[:, c.OPENS]
    start = int(np.searchsorted(opens, micros(stored.through), "right")) if stored else 0
    stop = len(market)
    if stop - start > 0 and stop > 1:
        there = np.isfinite(market.bars[:, c.CLOSE])
        lacking = (there[stop - 2] & ~there[stop - 1]).any()
        if lacking and micros(now) < market.times[stop - 1, c.AVAILABLE] + _WAIT // timedelta(microseconds=1):
            stop -= 1
    return slice(start, stop)


def _known(market: Market, fresh: slice, through: datetime | None) -> slice:
    """Those of the times of which predictions, or the decisions of members, are known: the others wait for them."""
    stop = 0 if through is None else int(np.searchsorted(market.times[:, c.OPENS], micros(through), "right"))
    return slice(fresh.start, min(fresh.stop, stop))


def sendable_times(
    market: Market, fresh: slice, stored: StoredAccount | None, dataset: Dataset, strategy: Strategy, now: datetime
) -> tuple[slice, slice]:
    """Of times that were not traded those to trade at a broker, and those among them whose orders would be too late.

    Without a bar whose orders can still be sent the account waits; a new one begins with the first of those.
    """
    stale = fresh.start
    available = pl.Series(market.times[fresh, c.AVAILABLE]).cast(pl.Datetime("us", "UTC")).to_list()
    for place in range(len(available), 0, -1):
        # The older they are the earlier it is too late.
        if now >= sendable_until(available[place - 1], dataset, strategy.interval):
            stale = fresh.start + place
            break
    fresh = slice(fresh.start if stored and stale < fresh.stop else stale, fresh.stop)
    return fresh, slice(fresh.start, stale)


def advance(
    accounts: Books,
    strategy: Strategy,
    market: Market,
    fresh: slice,
    stored: StoredAccount | None,
    decides: Trader,
    models: Mapping[date, str],
    at_broker: AtBroker | None = None,
) -> Trades:
    """Trade these times of a market, session by session, and write all of it in one transaction.

    fresh: `fresh_times`, or the first of them. market: all bars of the sessions of these times. stored: where the
    account stands. models: the version of the model that decides, by session. at_broker: of an account whose orders a
    broker fills. Where another process has traded the account meanwhile nothing is done.
    """
    days = market.sessions
    state, costs = None, 0.0
    late, rows = pl.DataFrame(), dict[date, dict[str, object]]()
    if stored:
        state = State.from_bytes(stored.state).for_symbols(stored.symbols, strategy.symbols)
        known = accounts.sessions(strategy.name, min(days[0], stored.session))
        costs = float(known["costs_to_date"][-1])
        if at_broker is not None:
            # What was settled since the last step is in no session yet.
            costs += costs_of(engine_events(accounts.events(strategy.name, stored.session + _DAY)))
        late = _late(market[: fresh.start], known)
        rows = _counted_again(known, late)
    # They are read after the account was: what another step takes in meanwhile makes this one fail, and is not doubled.
    asked, taken = due(accounts.requests(strategy.name, pending=True), market, fresh)
    if len(late):
        asked.setdefault(fresh.start, Requests(market.symbols)).extend(_noted(strategy, late))
    events: list[Events] = []
    sessions = market.times[fresh, c.SESSION]
    changes = (np.flatnonzero(np.diff(sessions)) + 1 + fresh.start).tolist()
    # Of each stretch the first time has what is asked for by hand.
    for stretch in (slice(*edge) for edge in pairwise(sorted({fresh.start, fresh.stop, *changes, *asked}))):
        done = decides.trade(stretch, state, asked.get(stretch.start))
        state = done.state
        events.append(done.events)
        filled = done.events.floats[done.events.integers[:, c.E_KIND] == c.K_FILL]
        costs += float(np.nansum(filled[:, [c.E_COMMISSION, c.E_SLIPPAGE]]))
        account = (float(done.equity[-1]), float(done.cash[-1]), float(done.gross[-1]), costs)
        session = days[stretch.start]
        # Of a session that goes on, the bars from its beginning.
        bars = _bars(market[market.within(session, session).start : stretch.stop])
        rows[session] = session_row(session, account, held_in(state, strategy.symbols), bars, models.get(session))
    if state is None:
        return Trades(strategy.name)
    # A frame of all at once: making one takes longer than trading a session.
    every = to_frame(
        np.concatenate([one.integers for one in events]),
        np.concatenate([one.floats for one in events]),
        strategy.symbols,
        strategy.name,
    )
    after = StoredAccount(
        through=pl.Series([int(market.times[fresh.stop - 1, c.OPENS])]).cast(pl.Datetime("us", "UTC"))[0],
        session=days[fresh.stop - 1],
        oldest_open=_oldest_open(accounts, strategy.name, stored, every, days[fresh.stop - 1]),
        events=(stored.events if stored else 0) + len(every),
        symbols=strategy.symbols,
        state=state.to_bytes(),
        halted=state.halted,
        halted_since=_halted_since(state, every, stored),
        bot=decides.remembered(),
        broker=strategy.broker,
    )
    also = None
    if at_broker is not None:
        ledger = at_broker.ledger
        known_orders = ledger.by_reference(every["client_order_id"].drop_nulls().unique().to_list())
        closes = last_closes(state, strategy.symbols)
        asked_of_broker = orders_for_broker(every, known_orders, strategy, at_broker.dataset, closes, at_broker.now)
        unfinished = ledger.unfinished(strategy.broker)
        asked_of_broker = beside_reductions(asked_of_broker, unfinished, state, strategy.name)
        also = partial(ledger.write, orders=asked_of_broker)
    frame = sessions_frame(list(rows.values()))
    if not accounts.advance(strategy.name, stored, after, event_rows(every), frame, taken, also):
        # Another process has traded these bars.
        return Trades(strategy.name)
    seen = int(late["bars"].sum()) if len(late) else 0
    return Trades(strategy.name, len(sessions), len(every), every.filter(kind="fill").height, seen)


def _bars(market: Market) -> dict[str, int]:
    """How many bars each symbol has."""
    counts = np.isfinite(market.bars[:, c.CLOSE]).sum(axis=0)
    return dict(zip(market.symbols, counts.tolist(), strict=True))


def _late(market: Market, known: pl.DataFrame) -> pl.DataFrame:
    """session, symbol, bars: how many bars of the past there are now that were not there when it was traded."""
    found = []
    for session, told in known.select("session", "bars").iter_rows():
        before = json.loads(told)
        for symbol, count in _bars(market[market.within(session, session)]).items():
            if count > before.get(symbol, 0):
                found.append((session, symbol, count - before.get(symbol, 0)))
    return pl.DataFrame(found, {"session": pl.Date, "symbol": pl.String, "bars": pl.Int64}, orient="row")


def _counted_again(known: pl.DataFrame, late: pl.DataFrame) -> dict[date, dict[str, object]]:
    """The rows of the sessions of which bars were seen late, with these counted."""
    rows = {}
    for row in known.filter(pl.col("session").is_in(late["session"].implode())).iter_rows(named=True):
        bars = json.loads(row["bars"])
        for symbol, count in late.filter(session=row["session"]).select("symbol", "bars").iter_rows():
            bars[symbol] = bars.get(symbol, 0) + count
        rows[row["session"]] = {**row, "bars": json.dumps(bars)}
    return rows


def _noted(strategy: Strategy, late: pl.DataFrame) -> Requests:
    requests = Requests(strategy.symbols)
    for symbol, bars in late.group_by("symbol", maintain_order=True).agg(pl.col("bars").sum()).iter_rows():
        requests.seen_late(symbol, bars)
    return requests


def _halted_since(state: State, events: pl.DataFrame, stored: StoredAccount | None) -> datetime | None:
    """When the account was halted, UTC: in this step, or before it; None where it is not."""
    if state.halted is None:
        return None
    halts = events.filter(kind="halt")["event_time"]
    return halts[-1] if len(halts) else stored.halted_since if stored else None


def _oldest_open(
    accounts: Books, strategy: str, stored: StoredAccount | None, events: pl.DataFrame, last: date
) -> date:
    """The earliest session in which an order was decided that still works, else the last one traded."""
    earlier = engine_events(accounts.events(strategy, stored.oldest_open)) if stored else events.clear()
    orders = projections.orders(pl.concat([earlier, events]))
    working = orders.filter(status="working")["session"]
    return min([last, *working.to_list()])
