"""How an account stood to a symbol when it could decide on a bar, and why it traded or did not.

Worked out from the events that are on record.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any

import polars as pl

from quantlytic_assets.trading.engine import projections
from quantlytic_assets.trading.reasons import in_words

# A working order is called back by a decision, all others end within a bar.
_CALLED_BACK = ("superseded", "by_hand")
_CHANGES = ("fill", "split", "delisting", "rename")


@dataclass(frozen=True)
class DecidedBar:
    """The bar of a symbol that a decision belongs to: times UTC, `available_at` of all symbols of its open time."""

    symbol: str
    session: date
    open_time: datetime
    close_time: datetime
    available_at: datetime


@dataclass(frozen=True)
class Standing:
    """The account and one symbol after the decision on a bar.

    held: shares before the bar's own orders were filled. decision: the last decision on the symbol, which stands until
    another one is made. halt: what halted the account, while it is halted. orders: those decided on this bar, as
    `projections.orders` has them, with all that became of them; exits are not among them. working: the orders decided
    on earlier bars that were not filled yet.
    """

    held: float
    decision: dict[str, Any] | None
    halt: dict[str, Any] | None
    orders: list[dict[str, Any]]
    working: list[dict[str, Any]]


@dataclass(frozen=True)
class Verdict:
    """Why a bar led to an order or to none: a short code, the same in words, and the orders and events it rests on."""

    code: str
    text: str
    orders: tuple[str, ...] = ()
    events: tuple[int, ...] = ()


class SymbolRecord:
    """What an account's events say of one symbol up to the end of a session, laid out once for all of its bars.

    events: EVENTS_SCHEMA of the whole account. Later ones tell what became of the session's orders.
    """

    def __init__(self, events: pl.DataFrame, symbol: str, session: date):
        told = events.filter(pl.col("session") <= session)
        mine = told.filter(symbol=symbol)
        self._decisions = mine.filter(kind="decision").to_dicts()
        self._changes = mine.filter(pl.col("kind").is_in(_CHANGES)).to_dicts()
        self._halts = told.filter(pl.col("kind").is_in(["halt", "resume"])).to_dicts()
        of_entries = events.filter(~pl.col("leg").str.contains(".", literal=True), symbol=symbol)
        called_back = pl.col("reason").is_in(_CALLED_BACK)
        over = pl.col("kind").is_in(["order_cancelled", "order_expired"]) | (
            (pl.col("kind") == "fill") & (pl.col("value") == 0)
        )
        ended = (
            of_entries.filter(over)
            .group_by("order")
            .agg(
                pl.col("event_time").last().alias("ended_at"), called_back.last().fill_null(False).alias("called_back")
            )
        )
        orders = projections.orders(of_entries).join(ended, on="order", how="left", maintain_order="left")
        # Orders that had ended in an earlier session say nothing of this one.
        begun = told.filter(session=session)["event_time"].min()
        since = pl.lit(True) if begun is None else pl.col("ended_at").is_null() | (pl.col("ended_at") >= begun)
        self._orders = orders.filter(since).to_dicts()

    def at(self, bar: DecidedBar) -> Standing:
        """The standing after the decision on a bar of the session."""
        decisions = bisect_right(self._decisions, bar.available_at, key=_time)
        changes = bisect_right(self._changes, bar.close_time, key=_time)
        # The next bar may open at the moment in which this one becomes available: what it fills was decided here.
        while changes and (self._changes[changes - 1]["decision_time"] or bar.open_time) >= bar.available_at:
            changes -= 1
        halts = bisect_right(self._halts, bar.available_at, key=_time)
        last = self._halts[halts - 1] if halts else None
        return Standing(
            held=float(self._changes[changes - 1]["position"] or 0.0) if changes else 0.0,
            decision=self._decisions[decisions - 1] if decisions else None,
            halt=last if last is not None and last["kind"] == "halt" else None,
            orders=[one for one in self._orders if one["decision_time"] == bar.available_at],
            working=[one for one in self._orders if _works(one, bar)],
        )


def _works(order: dict[str, Any], bar: DecidedBar) -> bool:
    """Whether an order of an earlier bar still works after the decision on this one."""
    if order["status"] == "rejected" or order["decision_time"] >= bar.available_at:
        return False
    # One that is called back ends with the decision, others within the bar.
    end = bar.available_at if order["called_back"] else bar.close_time
    return order["ended_at"] is None or order["ended_at"] > end


def _time(event: dict[str, Any]) -> datetime:
    return event["event_time"]


def verdict(at: Standing, signal: dict[str, Any] | None, band: float, bot: bool = False) -> Verdict:
    """Why the account traded on a usable bar, or did not.

    signal: the row of trading.signals of the bar, None where there is none. band: the rebalance band, a fraction.
    bot: whether the strategy asks for orders itself, and has no signals.
    """
    sent = [one for one in at.orders if one["status"] != "rejected"]
    if sent:
        filled = [one for one in sent if one["filled"] > 0]
        if filled:
            return Verdict("traded", "; ".join(map(_became, sent)), _ids(sent))
        return Verdict("order_not_filled", "; ".join(map(_became, sent)), _ids(sent))
    if at.orders:
        whys = ", ".join(dict.fromkeys(in_words(one["reason"]) or "no reason" for one in at.orders))
        return Verdict("decision_rejected", f"the order was rejected: {whys}", _ids(at.orders))
    if bot:
        return _halted(at) or _working(at) or Verdict("no_order", "the bot asked for no order at the bar")
    if signal is None:
        return Verdict("no_signal", "trading.signals has no row for the bar, and no order was decided on it")
    if signal["signal"] == "hold":
        return Verdict("hold", signal["reason"])
    said = f"the signal is {signal['signal']} ({signal['reason']})"
    enters = signal["signal"] == "buy" or (at.decision is not None and at.decision["value"] < 0)
    hindered = (_halted(at) if enters and not at.held else None) or _working(at)
    if hindered is not None:
        return replace(hindered, text=f"{said}; {hindered.text}")
    decision = at.decision
    if decision is None:
        return Verdict("no_decision", f"{said}; no decision on the symbol is on record")
    seq = (decision["seq"],)
    since = f"{decision['event_time']:%Y-%m-%d %H:%M}"
    if decision["reason"] is not None and not at.held:
        return Verdict("decision_rejected", f"{said}; decided {since}: {in_words(decision['reason'])}", events=seq)
    if not at.held:
        return Verdict("at_target", f"{said}; nothing is held, and nothing is to be", events=seq)
    near = f", within the rebalance band of {band:.1%}" if band else ""
    limited = f", {in_words(decision['reason'])}" if decision["reason"] else ""
    text = f"{said}; {at.held:g} are held, which is the target decided {since}{near}{limited}"
    return Verdict("at_target", text, events=seq)


def _halted(at: Standing) -> Verdict | None:
    if at.halt is None:
        return None
    since = f"{at.halt['event_time']:%Y-%m-%d %H:%M}"
    return Verdict(
        "halted", f"the account is halted since {since}: {in_words(at.halt['reason'])}", events=(at.halt["seq"],)
    )


def _working(at: Standing) -> Verdict | None:
    if not at.working:
        return None
    waiting = ", ".join(
        f"{one['side']} {one['quantity']:g} {one['type']} of {one['decision_time']:%Y-%m-%d %H:%M}"
        for one in at.working
    )
    return Verdict("order_working", f"an earlier order still works: {waiting}", _ids(at.working))


def _became(order: dict[str, Any]) -> str:
    """An order and what became of it."""
    price = order["price"] if order["price"] is not None else order["stop"]
    placed = f"{order['type']} at {price:g}" if price is not None else order["type"]
    said = f"{order['side']} {order['quantity']:g} {placed} is "
    said += "still working" if order["status"] == "working" else order["status"]
    if order["filled"] > 0:
        part = f", {order['filled']:g} of {order['quantity']:g} filled" if order["status"] != "filled" else ""
        said += f"{part} at {order['average_price']:g}"
    return f"{said}, {in_words(order['reason'])}" if order["reason"] else said


def _ids(orders: list[dict[str, Any]]) -> tuple[str, ...]:
    return tuple(one["client_order_id"] for one in orders)
