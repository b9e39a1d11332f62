"""Accounts from before they were the engine's: their orders become events, and the engine goes on from what is held.

Such an account had at most one order a session and symbol, which the next bar filled. Its equity and positions are
those that were published last.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from quantlytic_assets.schemas.trading import ACCOUNT_SESSIONS_SCHEMA, EQUITY, POSITIONS
from quantlytic_assets.storage.accounts import Accounts, StoredAccount
from quantlytic_assets.tables.features import usable_bars
from quantlytic_assets.tables.trading import equity, positions
from quantlytic_assets.trading.account_tables import event_rows, session_row, sessions_frame
from quantlytic_assets.trading.engine import codes as c
from quantlytic_assets.trading.engine.events import EVENTS_SCHEMA
from quantlytic_assets.trading.engine.market import day_number
from quantlytic_assets.trading.engine.state import State

if TYPE_CHECKING:
    from quantlytic_assets.tables.select import Queries
    from quantlytic_assets.universe.models import Dataset, Strategy

_DAY = timedelta(days=1)
# Shares that differ by less are the same shares.
_ROUNDING = 1e-6


class LostAccount(Exception):
    """An account of before can't be gone on from; the message says what to do."""


def taken_over(lake: Queries, accounts: Accounts, dataset: Dataset, strategy: Strategy) -> StoredAccount | None:
    """The account that the engine goes on from, of the orders and fills of before; None where there are none.

    A split shows as a change of what is held without a fill. Dividends are in the equity alone. An order that still
    waited is cancelled: the next decision asks for it again. Raises `LostAccount` where the published account is gone.
    """
    found = accounts.of_before(strategy.name)
    if found is None:
        return None
    orders, fills = found
    curve = equity(lake, strategy.name, EQUITY.polars.names())
    held = positions(lake, strategy.name, POSITIONS.polars.names())
    if curve.is_empty():
        raise LostAccount(
            f"{strategy.name} has orders of an older version on record, and its account is no more in the lake; "
            f"to trade anew: quantlytic backfill {strategy.name} --restart"
        )
    if gone := sorted(set(held.filter(pl.col("session") == curve["session"][-1])["symbol"]) - {*strategy.symbols}):
        raise LostAccount(
            f"{strategy.name} holds {', '.join(gone)}, which it does not trade any more; add them to its symbols, or "
            f"trade anew: quantlytic backfill {strategy.name} --restart"
        )
    events = _events(strategy.name, orders, fills, held, curve["session"][-1])
    bars = usable_bars(
        lake, dataset.name, strategy.interval, ["symbol", "session", "open_time"],
        incomplete=dataset.incomplete_bars == "keep", since=curve["session"][0],
        before=curve["session"][-1] + _DAY, symbols=strategy.symbols,
    )  # fmt: skip
    last = curve["session"][-1]
    after = StoredAccount(
        through=bars["open_time"].max() or datetime.combine(last, datetime.min.time(), UTC),
        session=last,
        oldest_open=last,
        events=len(events),
        symbols=strategy.symbols,
        state=_state(strategy, curve, held, orders, len(events)).to_bytes(),
    )
    accounts.advance(strategy.name, None, after, event_rows(events), _sessions(curve, held, bars, orders))
    return accounts.last(strategy.name)


def _events(strategy: str, orders: pl.DataFrame, fills: pl.DataFrame, held: pl.DataFrame, last: date) -> pl.DataFrame:
    """EVENTS_SCHEMA of orders, fills and splits, oldest first."""
    number = {ref: place for place, ref in enumerate(orders["order_ref"], 1)}
    rows: list[dict[str, Any]] = []
    decided = {}
    for one in orders.iter_rows(named=True):
        common = {
            "client_order_id": one["order_ref"], "order": number[one["order_ref"]], "symbol": one["symbol"],
            "leg": "entry" if one["side"] == "buy" else "reduce", "side": one["side"], "type": "market",
            "quantity": one["quantity"], "decision_time": one["decision_time"],
        }  # fmt: skip
        decided[one["order_ref"]] = common
        kind = "order_rejected" if one["status"] == "rejected" else "order_accepted"
        told = {"event_time": one["decision_time"], "session": one["session"], "kind": kind, "reason": one["reason"]}
        rows.append({**common, **told})
        if one["status"] == "open":
            end = max(one["decision_time"], datetime.combine(last, datetime.min.time(), UTC))
            rows.append(
                {
                    **common,
                    **told,
                    "event_time": end,
                    "session": last,
                    "kind": "order_cancelled",
                    "reason": "superseded",
                }
            )
    rows += list(_changes(fills, held, decided))
    frame = pl.DataFrame(rows, EVENTS_SCHEMA, strict=False).sort("event_time", maintain_order=True)
    return frame.with_columns(
        pl.lit(strategy).alias("strategy"),
        pl.int_range(1, pl.len() + 1).alias("seq"),
        pl.col("ambiguous").fill_null(False),
    )


def _changes(fills: pl.DataFrame, held: pl.DataFrame, decided: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Fills with the position after each, and the splits that the positions show."""
    sign = pl.when(pl.col("side") == "buy").then(1.0).otherwise(-1.0)
    signed = fills.with_columns((pl.col("quantity") * sign).alias("signed"))
    for (symbol,), own in signed.group_by(["symbol"], maintain_order=True):
        by_session = dict(held.filter(symbol=symbol).select("session", "quantity").iter_rows())
        filled = {day: list(rows.iter_rows(named=True)) for (day,), rows in own.group_by(["fill_session"])}
        position = 0.0
        for session in sorted({*by_session, *filled}):
            traded = filled.get(session, [])
            shown = by_session.get(session, 0.0)
            before = shown - sum(one["signed"] for one in traded)
            if position > 0 and before > 0 and abs(before - position) > _ROUNDING:
                yield {
                    "event_time": datetime.combine(session, datetime.min.time(), UTC), "session": session,
                    "kind": "split", "symbol": symbol, "position": before, "value": before / position,
                }  # fmt: skip
                position = before
            for one in traded:
                position += one["signed"]
                yield {
                    **decided[one["order_ref"]], "event_time": one["fill_time"], "session": session, "kind": "fill",
                    "quantity": one["quantity"], "price": one["price"], "commission": one["commission"],
                    "slippage": one["slippage"], "position": position, "value": 0.0,
                }  # fmt: skip


def _sessions(curve: pl.DataFrame, held: pl.DataFrame, bars: pl.DataFrame, orders: pl.DataFrame) -> pl.DataFrame:
    """ACCOUNT_SESSIONS_SCHEMA of the published account."""
    versions = dict(orders.filter(pl.col("model_version").is_not_null()).select("session", "model_version").iter_rows())
    counts: dict[date, dict[str, int]] = {}
    for session, symbol, count in bars.group_by("session", "symbol").len().iter_rows():
        counts.setdefault(session, {})[symbol] = count
    shares: dict[date, dict[str, tuple[float, float, float]]] = {}
    for row in held.iter_rows(named=True):
        shares.setdefault(row["session"], {})[row["symbol"]] = (row["quantity"], row["average_price"], row["close"])
    rows = []
    for row in curve.iter_rows(named=True):
        session = row["session"]
        account = (row["equity"], row["cash"], row["gross_exposure"], row["costs_to_date"])
        of_day = shares.get(session, {}), counts.get(session, {}), versions.get(session)
        rows.append(session_row(session, account, *of_day))
    return sessions_frame(rows).select(ACCOUNT_SESSIONS_SCHEMA.names())


def _state(strategy: Strategy, curve: pl.DataFrame, held: pl.DataFrame, orders: pl.DataFrame, events: int) -> State:
    """The engine's state at the end of the last session."""
    money = curve["equity"].to_numpy()
    state = State(len(strategy.symbols), strategy.settings.capital)
    view = state.view
    view.account[c.CASH] = curve["cash"][-1]
    view.account[[c.EQUITY, c.DAY_START, c.SESSION_EQUITY]] = money[-1]
    view.account[c.PEAK] = max(strategy.settings.capital, float(np.max(money)))
    view.counts[c.LAST_SESSION] = day_number(curve["session"][-1])
    view.counts[c.NEXT_ORDER], view.counts[c.NEXT_EVENT] = len(orders) + 1, events
    for row in held.filter(pl.col("session") == curve["session"][-1]).iter_rows(named=True):
        place = strategy.symbols.index(row["symbol"])
        view.symbols[c.QUANTITY, place] = row["quantity"]
        view.symbols[c.AVERAGE, place] = row["average_price"]
        view.symbols[c.LAST, place] = row["close"]
    return state
