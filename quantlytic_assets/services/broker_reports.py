"""What a broker's reports and its book make of an order that is on record: pure, so that each case can be tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from zoneinfo import ZoneInfo

from quantlytic_assets.brokers.protocol import OrderReport, Refusal
from quantlytic_assets.storage.broker_ledger import BrokerFill, BrokerOrder, filled, is_whole

# IB's day, for which it tells executions and ended orders.
_BROKERS_ZONE = ZoneInfo("America/New_York")
_DUST = 1e-9


def reported(order: BrokerOrder, report: OrderReport, now: datetime) -> BrokerOrder:
    """The order after a report of how it stands."""
    known = replace(
        order,
        order_id=report.order_id or order.order_id,
        permanent_id=report.permanent_id or order.permanent_id,
        filled=max(order.filled, report.filled),
    )
    if report.status == "pending":
        return known
    if report.status in ("working", "held"):
        if order.ended and (order.told or order.status != "rejected"):
            # What was said before the end came after it.
            return order
        return replace(
            known, status="working", held_for=report.held_for or None, ended_at=None,
            reason=None if order.ended else order.reason,
        )  # fmt: skip
    if report.status == "filled":
        return replace(known, filled=max(known.filled, order.quantity))
    if order.ended:
        return known
    return _ended(known, report.status, report.text, now)


def refused(order: BrokerOrder, refusal: Refusal, now: datetime) -> BrokerOrder:
    """The order after the broker refused it, or a change of it, which leaves it as it was."""
    if order.ended:
        return order
    if order.status in ("written", "sent"):
        return _ended(order, "rejected", refusal.text, now)
    return replace(order, reason=refusal.text, sent_revision=order.revision)


def counted(order: BrokerOrder, shares: float, now: datetime) -> BrokerOrder:
    """The order with that many shares of it on record."""
    known = replace(order, filled=max(order.filled, shares))
    if is_whole(order, shares) and order.status != "filled":
        return replace(known, status="filled", reason=None, held_for=None, ended_at=now)
    if shares > 0 and order.status in ("written", "sent"):
        return replace(known, status="working")
    return known


def found(
    order: BrokerOrder, traces: Sequence[OrderReport], fills: Sequence[BrokerFill], now: datetime, *, sent_here: bool
) -> BrokerOrder:
    """The order after a look at the broker's book, of which `traces` are the entries with its reference.

    fills: its executions on record. sent_here: it was sent over the connection that the book came through, so that it
    may still be on its way. One that the broker never had is written again; an order of an earlier day, of which the
    broker tells nothing any more, is not.
    """
    for trace in sorted(traces, key=lambda one: one.status in ("working", "held", "pending")):
        # Working ones last: an order that works has the last word.
        status = "working" if trace.status == "pending" else trace.status
        order = reported(order, replace(trace, status=status), now)
    order = counted(order, filled([order], fills)[order.client_order_id], now)
    if traces or fills or order.ended:
        return order
    if order.status == "sent" and not sent_here:
        if order.sent_at is not None and _same_day(order.sent_at, now):
            return replace(order, status="written")
        return _ended(order, "expired", "sent on an earlier day, and the broker tells nothing of it any more", now)
    if order.status == "working" and not sent_here:
        if order.time_in_force == "day" and now >= order.expires_at:
            return _ended(order, "expired", "its day was over while nobody was connected", now)
        return _ended(order, "cancelled", "confirmed earlier, and not in the broker's book any more", now)
    return order


def is_told_whole(order: BrokerOrder, shares: float) -> bool:
    """Whether all executions are on record that the broker has counted."""
    return shares >= order.filled - _DUST


def _ended(order: BrokerOrder, status: str, text: str, now: datetime) -> BrokerOrder:
    if status == "cancelled" and order.wanted == "working":
        over = order.time_in_force == "ioc" or (order.time_in_force == "day" and now >= order.expires_at)
        status = "expired" if over else status
    return replace(order, status=status, reason=text or order.reason or status, held_for=None, ended_at=now)


def _same_day(one: datetime, other: datetime) -> bool:
    return one.astimezone(_BROKERS_ZONE).date() == other.astimezone(_BROKERS_ZONE).date()
