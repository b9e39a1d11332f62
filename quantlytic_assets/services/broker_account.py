"""The account of a strategy whose orders a broker fills: what its events ask of the broker, and what that reports.

A step of the engine decides; what it accepts, changes and calls back is written for the broker in the step's own
transaction. What the broker reports is settled between the steps, each report once, in a transaction that also says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import sqlalchemy as sa

from quantlytic_assets.calendars.sessions import expected_bars
from quantlytic_assets.services.broker_reports import is_told_whole
from quantlytic_assets.storage.accounts import Accounts, StoredAccount
from quantlytic_assets.storage.broker_ledger import BrokerFill, BrokerLedger, BrokerOrder, filled
from quantlytic_assets.trading.account_tables import event_rows, session_row, sessions_frame
from quantlytic_assets.trading.engine import codes as c
from quantlytic_assets.trading.engine.events import Events, to_frame
from quantlytic_assets.trading.engine.settlement import BrokerReport, Ordered, settle
from quantlytic_assets.trading.engine.state import State

if TYPE_CHECKING:
    from quantlytic_assets.universe.models import Dataset, Strategy

_CHANGES = ("order_accepted", "order_replaced", "order_cancelled", "order_expired")
# Said by the broker itself, which needs not be asked for it.
_ITS_OWN = {c.REASONS[one] for one in (c.R_REJECTED_THERE, c.R_CANCELLED_THERE, c.R_EXPIRED_THERE)}
# Exits work until they are filled or called back, whenever they get to the broker.
_ALWAYS = timedelta(days=3650)
_MINUTE = timedelta(minutes=1)
# How far the next bar is looked for: no exchange is closed for longer.
_NEXT_BAR = timedelta(days=14)
# A fill whose commission is not known waits so long for it.
_COMMISSION_WITHIN = timedelta(seconds=30)
_DUST = 1e-9


class OtherBroker(Exception):
    """An account was traded by another broker than the strategy's; the message says what to do."""


def check_broker(strategy: Strategy, stored: StoredAccount | None) -> None:
    """Raises `OtherBroker` where the account on record is not the strategy's broker's."""
    if stored is not None and stored.broker != strategy.broker:
        raise OtherBroker(
            f"{strategy.name} has broker: {strategy.broker}, and its account on record is traded by {stored.broker}; "
            f"give the strategy a new name, or set broker: {stored.broker}"
        )


# When an order is too late -------------------------------------------------------------------------------------------


def sendable_until(available: datetime, dataset: Dataset, interval: str) -> datetime:
    """Until when an order can be sent that was decided at a time, UTC: until the bar has ended that it works from."""
    ends = _ends(dataset.calendar, interval, available.date())
    after = ends.filter(pl.col("open_time") >= available)
    if after.is_empty():
        return available + _MINUTE
    return max(after["close_time"][0], available + _MINUTE)


@lru_cache(maxsize=64)
def _ends(calendar: str, interval: str, day: date) -> pl.DataFrame:
    return expected_bars(calendar, interval, day - timedelta(days=1), day + _NEXT_BAR)


# What an account asks of the broker ----------------------------------------------------------------------------------


def orders_for_broker(
    events: pl.DataFrame,
    known: Mapping[str, BrokerOrder],
    strategy: Strategy,
    dataset: Dataset,
    closes: Mapping[str, float],
    now: datetime,
) -> list[BrokerOrder]:
    """What new events (EVENTS_SCHEMA) ask of the broker: new orders, changed ones, and ones that are called back.

    known: orders that are written already, by client order id. closes: the last close of each symbol.
    """
    found: dict[str, BrokerOrder] = {}
    wanted = events.filter(pl.col("kind").is_in(_CHANGES), pl.col("client_order_id").is_not_null())
    for event in wanted.iter_rows(named=True):
        ref = event["client_order_id"]
        order = found.get(ref) or known.get(ref)
        if event["kind"] == "order_accepted":
            found[ref] = _new(event, strategy, dataset, closes, now)
        elif order is None or event["reason"] in _ITS_OWN:
            continue
        elif event["kind"] == "order_replaced":
            found[ref] = replace(
                order, quantity=event["quantity"], limit_price=event["price"], stop_price=event["stop"],
                revision=order.revision + 1,
            )  # fmt: skip
        else:
            found[ref] = replace(order, wanted="cancelled")
    return list(found.values())


def _new(event: dict, strategy: Strategy, dataset: Dataset, closes: Mapping[str, float], now: datetime) -> BrokerOrder:
    leg, kind, settings = event["leg"], event["type"], strategy.settings
    parent, _, rest = leg.partition(".")
    is_exit = rest != "" and not rest.isdigit()
    lasting = is_exit or parent in ("max_bars", "liquidation")
    force = "gtc" if lasting else settings.orders.time_in_force if parent in ("entry", "reduce") else "day"
    trail = settings.exits.trailing_stop if is_exit else settings.orders.trail
    before = event["client_order_id"].rpartition(":")[0]
    return BrokerOrder(
        client_order_id=event["client_order_id"],
        broker=strategy.broker,
        strategy=strategy.name,
        number=event["order"],
        session=event["session"],
        symbol=event["symbol"],
        leg=leg,
        side=1 if event["side"] == "buy" else -1,
        quantity=event["quantity"],
        type=kind,
        time_in_force=force,
        limit_price=event["price"],
        stop_price=event["stop"],
        trail=trail if kind == "trailing_stop" else None,
        # Exits of one fill cancel each other.
        oca_group=f"{before}:{parent}" if is_exit else "",
        reference_price=closes.get(event["symbol"]),
        decision_time=event["decision_time"],
        expires_at=now + _ALWAYS if lasting else sendable_until(event["decision_time"], dataset, strategy.interval),
        written_at=now,
    )


def beside_reductions(
    asked: Sequence[BrokerOrder], unfinished: Iterable[BrokerOrder], state: State, strategy: str
) -> list[BrokerOrder]:
    """What is asked of the broker, so that an exit and a reduction that are filled together sell no more than is held.

    A reduction to nothing joins the group of the exits, which cancel each other there. Beside a smaller one the exits
    are smaller by as much, as long as it works. unfinished: the orders of the broker that are not over.
    """
    orders = {
        one.client_order_id: one
        for one in unfinished
        if one.strategy == strategy and not one.ended and one.wanted == "working"
    }
    orders |= {one.client_order_id: one for one in asked}
    used = state.working_orders
    amounts = dict(
        zip(state.view.codes[:used, c.ID].tolist(), state.view.orders[:used, c.AMOUNT].tolist(), strict=True)
    )
    changed = {one.client_order_id: one for one in asked}
    exits = [one for one in orders.values() if one.exits and one.wanted == "working" and one.number in amounts]
    for symbol in {one.symbol for one in exits}:
        own = [one for one in exits if one.symbol == symbol]
        reductions = [
            one
            for one in orders.values()
            if one.symbol == symbol and one.side == own[0].side and not one.exits and one.wanted == "working"
        ]
        whole = min(amounts[one.number] for one in own)
        partly = 0.0
        for one in reductions:
            left = max(0.0, one.quantity - one.filled)
            if left < whole - _DUST:
                partly += left
            elif one.status == "written" and one.oca_group != own[0].oca_group:
                changed[one.client_order_id] = replace(one, oca_group=own[0].oca_group)
        for one in own:
            quantity = amounts[one.number] - partly
            if quantity > _DUST and abs(quantity - one.quantity) > _DUST:
                # A new order is sent with it, one that is there already is changed.
                revision = one.revision + (one.client_order_id not in changed)
                changed[one.client_order_id] = replace(one, quantity=quantity, revision=revision)
    return list(changed.values())


def last_closes(state: State, symbols: Sequence[str]) -> dict[str, float]:
    """The last close of each symbol that has one."""
    lasts = state.view.symbols[c.LAST].tolist()
    return {name: close for name, close in zip(symbols, lasts, strict=True) if close > 0}


# What the broker reports ---------------------------------------------------------------------------------------------


def reports_of(
    orders: Iterable[BrokerOrder], fills: Sequence[BrokerFill], dataset: Dataset, last: date, now: datetime
) -> tuple[list[BrokerReport], list[BrokerFill], list[str]]:
    """What the account has not taken in of these orders: the reports, and the fills and ends that they are.

    last: the account's last session, in which is told what belongs to no later one. A fill waits a while for its
    commission, an end for all fills before it.
    """
    by_order: dict[str, list[BrokerFill]] = {}
    for fill in fills:
        by_order.setdefault(fill.client_order_id or "", []).append(fill)
    reports: list[BrokerReport] = []
    taken: list[BrokerFill] = []
    ended: list[str] = []
    for order in orders:
        what = Ordered(order.number, order.symbol, order.side, order.type, order.leg, order.decision_time)
        mine, waits, done = by_order.get(order.client_order_id, []), False, 0.0
        for fill in mine:
            session = max(last, session_of(dataset, fill.executed_at))
            done += fill.quantity
            if fill.taken_quantity is None:
                if fill.commission is None and now - fill.recorded_at < _COMMISSION_WITHIN:
                    waits = True
                    continue
                left = max(0.0, order.quantity - done)
                if fill.quantity == 0.0:
                    # It was taken back before anybody saw it.
                    reports += _changes(replace(fill, taken_quantity=0.0, taken_price=fill.price), what, now, last)
                    taken.append(fill)
                    continue
                reports.append(
                    BrokerReport(
                        "filled",
                        what,
                        fill.executed_at,
                        session,
                        fill.quantity,
                        fill.price,
                        fill.commission or 0.0,
                        left,
                    )
                )
            elif not fill.taken:
                reports += _changes(fill, what, now, last)
            else:
                continue
            taken.append(fill)
        told = filled([order], mine)[order.client_order_id]
        if order.ended and not order.told and not waits and is_told_whole(order, told):
            ended.append(order.client_order_id)
            # Of what was taken back nothing comes any more.
            end = "cancelled" if order.status == "filled" and done < order.quantity - _DUST else order.status
            if end != "filled":
                when = order.ended_at or now
                session = max(last, session_of(dataset, when))
                reports.append(BrokerReport("ended", what, when, session, end=end))  # type: ignore[arg-type]
    reports.sort(key=lambda one: one.time)
    return reports, taken, ended


def _changes(fill: BrokerFill, what: Ordered, now: datetime, last: date) -> list[BrokerReport]:
    """What is different of a fill that was taken in before."""
    found = []
    if (fill.quantity, fill.price) != (fill.taken_quantity, fill.taken_price):
        before = (fill.taken_quantity or 0.0, fill.taken_price or 0.0)
        found.append(
            BrokerReport(
                "corrected",
                what,
                now,
                last,
                fill.quantity,
                fill.price,
                quantity_before=before[0],
                price_before=before[1],
            )
        )
    more = (fill.commission or 0.0) - (fill.taken_commission or 0.0)
    if fill.commission is not None and abs(more) > _DUST:
        found.append(BrokerReport("charged", what, now, last, commission=more))
    return found


def session_of(dataset: Dataset, when: datetime) -> date:
    """The session that a time belongs to: the one it is in, or the last one before it."""
    known = _ends(dataset.calendar, "1d", when.date() - _NEXT_BAR)
    before = known.filter(pl.col("open_time") <= when)
    return before["session"][-1] if len(before) else when.date()


def settle_reports(
    accounts: Accounts,
    ledger: BrokerLedger,
    strategy: Strategy,
    dataset: Dataset,
    static: np.ndarray,
    now: datetime,
    atr: np.ndarray | None = None,
) -> int:
    """Takes into the account what the broker reported since the last time; returns how many events that were.

    static, atr: as `engine.settlement.settle` has them, of the strategy's symbols. What follows for the broker, as the
    exits of an entry, is written in the same transaction. 0 where another process was quicker.
    """
    stored = accounts.last(strategy.name)
    check_broker(strategy, stored)
    if stored is None:
        return 0
    orders = ledger.orders(strategy.broker, strategy=strategy.name, since=_oldest(ledger, strategy, stored))
    fills = ledger.fills([one.client_order_id for one in orders])
    reports, taken, ended = reports_of(orders, fills, dataset, stored.session, now)
    if not taken and not ended:
        return 0
    state = State.from_bytes(stored.state).for_symbols(stored.symbols, strategy.symbols)
    # What belongs to the session that was traded last changes its figures; the rest is the next one's.
    of_last = [one for one in reports if one.session <= stored.session]
    later = [one for one in reports if one.session > stored.session]
    state, first = settle(state, strategy.settings, strategy.symbols, static, of_last, atr)
    sessions = _session_again(accounts, strategy, stored, state, first) if of_last else _no_sessions()
    state, second = settle(state, strategy.settings, strategy.symbols, static, later, atr)
    events = to_frame(
        np.concatenate([first.integers, second.integers]),
        np.concatenate([first.floats, second.floats]),
        strategy.symbols,
        strategy.name,
    )
    known = {one.client_order_id: one for one in orders}
    asked = orders_for_broker(events, known, strategy, dataset, last_closes(state, strategy.symbols), now)
    asked = beside_reductions(asked, _left(orders, ended), state, strategy.name)

    def also(connection: sa.Connection) -> None:
        ledger.write(connection, asked)
        ledger.take(connection, taken, ended)

    after = replace(
        stored,
        events=stored.events + len(events),
        symbols=strategy.symbols,
        state=state.to_bytes(),
        halted=state.halted,
    )
    done = accounts.advance(strategy.name, stored, after, event_rows(events), sessions, also=also)
    return len(events) if done else 0


def _left(orders: Iterable[BrokerOrder], ended: Sequence[str]) -> list[BrokerOrder]:
    return [one for one in orders if not one.ended and one.client_order_id not in ended]


def _oldest(ledger: BrokerLedger, strategy: Strategy, stored: StoredAccount) -> date:
    """The session of the earliest order that can still change: a late commission or correction is of these days."""
    unfinished = [one.session for one in ledger.unfinished(strategy.broker) if one.strategy == strategy.name]
    return min([stored.oldest_open, stored.session - _NEXT_BAR, *unfinished])


def _session_again(
    accounts: Accounts, strategy: Strategy, stored: StoredAccount, state: State, events: Events
) -> pl.DataFrame:
    """The row of the last session, with what belongs to it and was reported after it had been traded."""
    known = accounts.sessions(strategy.name, stored.session).filter(session=stored.session)
    if known.is_empty():
        return known
    row = known.to_dicts()[0]
    view = state.view
    held = held_in(state, strategy.symbols)
    account = (
        float(view.account[c.EQUITY]), float(view.account[c.CASH]), float(view.account[c.GROSS]),
        row["costs_to_date"] + costs_of(to_frame(events.integers, events.floats, strategy.symbols, strategy.name)),
    )  # fmt: skip
    fresh = session_row(stored.session, account, held, {}, row["model_version"])
    return sessions_frame([{**fresh, "bars": row["bars"]}])


def _no_sessions() -> pl.DataFrame:
    return sessions_frame([])


def held_in(state: State, symbols: Sequence[str]) -> dict[str, tuple[float, float, float]]:
    """Quantity, average price and last close of what is held."""
    quantity, average, last = (state.view.symbols[place] for place in (c.QUANTITY, c.AVERAGE, c.LAST))
    return {
        symbol: (float(quantity[i]), float(average[i]), float(last[i]))
        for i, symbol in enumerate(symbols)
        if quantity[i] != 0
    }


def costs_of(events: pl.DataFrame) -> float:
    """Commissions and slippage of fills, and commissions that came later, of events (EVENTS_SCHEMA)."""
    fills = events.filter(kind="fill").select(pl.sum_horizontal("commission", "slippage").sum()).item()
    later = events.filter(kind="fee", reason=c.REASONS[c.R_COMMISSION])["value"].sum()
    return float(fills or 0.0) + float(later or 0.0)
