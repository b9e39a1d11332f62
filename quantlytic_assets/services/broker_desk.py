"""A broker and the ledger of its orders, kept in agreement: sent once, found again after a break, never guessed.

Orders are written by the steps of accounts. Each is marked as sent before it is. What became of one that was sent when
the connection broke is read from the broker's book over a new connection; only where the broker has no trace of it, it
is sent again. Orders and executions that the ledger does not know are shown and never touched.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from quantlytic_assets.brokers.protocol import (
    Book,
    Broker,
    BrokerError,
    Charge,
    Fill,
    Link,
    Listing,
    Notice,
    OrderReport,
    Refusal,
    RefusedInstrument,
    Report,
    Ticket,
    Traded,
    Unplaced,
    Values,
)
from quantlytic_assets.brokers.restarts import Restarts
from quantlytic_assets.services.broker_reports import counted, found, is_told_whole, refused, reported
from quantlytic_assets.storage.broker_ledger import BrokerFill, BrokerLedger, BrokerOrder, filled

_log = logging.getLogger(__name__)
_FIELDS = tuple(one.name for one in fields(BrokerOrder))
# An order that nobody confirmed for so long is looked for over a new connection.
_CONFIRMED_WITHIN = timedelta(seconds=10)
# Executions that the broker has counted and not told are asked for after so long.
_TOLD_WITHIN = 2.0
_DUST = 1e-9


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Unknown:
    """Something in the broker's book that the ledger does not know, in words."""

    kind: str
    text: str


class BrokerDesk:
    """One account at a broker. `traded`: what the symbol of an order is, None where the universe has it no more.

    One process at a time may have the desk of an account (`resources.lock`). Methods raise `BrokerError` where the
    broker can't be asked, and `LiveAccount` where it must not be; orders stay as they are on record.
    """

    def __init__(
        self,
        broker: Broker,
        ledger: BrokerLedger,
        traded: Callable[[BrokerOrder], Traded | None],
        restarts: Restarts | None = None,
        clock: Callable[[], datetime] = _now,
        confirmed_within: timedelta = _CONFIRMED_WITHIN,
    ):
        self.broker, self.ledger = broker, ledger
        self.book = Book()
        self.unknown: list[Unknown] = []
        self.notices: list[Notice] = []
        self._traded, self._restarts, self._clock = traded, restarts or Restarts(), clock
        self._confirmed_within = confirmed_within
        self._sent_here: set[str] = set()
        self._cancelled_here: set[str] = set()
        self._changed_here: dict[str, tuple[int, Ticket, datetime]] = {}
        self._agreed = False
        self._broken = True
        self._untold_since: float | None = None

    # The connection ------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Connects, and brings the ledger in line with the broker's book."""
        self._agreed, self._broken = False, True
        self._sent_here.clear()
        self._cancelled_here.clear()
        self._changed_here.clear()
        self.broker.connect()
        # Before the book is read: the line can break again while it is, and that must not be forgotten.
        self._broken = False
        self.reconcile()

    def close(self) -> None:
        """Ends the connection; orders go on working."""
        self._agreed, self._broken = False, True
        self.broker.close()

    @property
    def may_send(self) -> bool:
        """Whether orders can be sent now: connected, in agreement with the book, and no restart is near."""
        return self._agreed and self.broker.connected and not self._restarts.near(self._clock())

    def reconcile(self) -> None:
        """Compares the ledger with the broker's book and notes what became of each order."""
        try:
            self._reconcile()
        except BrokerError:
            self._broken = True
            raise

    def _reconcile(self) -> None:
        self._take(self.broker.reports(0))
        book = self.broker.book()
        # What happened while the book was being told.
        self._take(self.broker.reports(0))
        self._record(book.fills, book.charges)
        traces: dict[str, list[OrderReport]] = {}
        for one in (*book.ended, *book.open):
            if one.order_ref and one.account in ("", self.broker.account):
                traces.setdefault(one.order_ref, []).append(one)
        unfinished = self.ledger.unfinished(self.broker.name)
        known = self.ledger.by_reference([*traces, *(one.order_ref for one in book.fills)])
        own: dict[str | None, list[BrokerFill]] = {}
        for fill in self.ledger.fills([one.client_order_id for one in unfinished]):
            own.setdefault(fill.client_order_id, []).append(fill)
        now, changes = self._clock(), dict[str, dict[str, Any]]()
        for order in unfinished:
            ref = order.client_order_id
            after = found(
                order, traces.get(ref, ()), own.get(ref, ()), now, sent_here=ref in self._sent_here
            )  # fmt: skip
            self._note(changes, order, after)
        self.ledger.change(changes)
        self.book, self.unknown = book, _unknown(book, known, traces)
        self._untold_since = None
        self._agreed = True

    # One turn ------------------------------------------------------------------------------------------------------

    def turn(self, seconds: float = 0.0) -> bool:
        """Takes in what was reported, waiting so long for the first, then sends what is to be sent.

        Returns whether anything happened. A connection that broke, or over which nobody answers any more, is made anew,
        by the next turn where that fails with a `BrokerError` now.
        """
        try:
            return self._turn(seconds)
        except BrokerError:
            self._broken = True
            raise

    def _turn(self, seconds: float) -> bool:
        reports = self.broker.reports(seconds)
        happened = self._take(reports)
        if self._broken or self._in_doubt_too_long():
            self.connect()
            happened = True
        elif (not self._agreed and self.broker.connected) or self._lacks_executions():
            self.reconcile()
            happened = True
        return self._send() or happened

    def settle_down(self, seconds: float) -> None:
        """Takes turns until each order is confirmed or over, at most so long."""
        until = time.monotonic() + seconds
        while self.turn(0.02) or (self._waits() and time.monotonic() < until):
            if time.monotonic() >= until:
                break

    def _waits(self) -> bool:
        mine = self.ledger.unfinished(self.broker.name)
        sums = filled(mine, self.ledger.fills([one.client_order_id for one in mine]))
        return any(
            one.status == "sent"
            or (one.wanted == "cancelled" and not one.ended)
            or not is_told_whole(one, sums.get(one.client_order_id, 0.0))
            for one in mine
        )

    def _in_doubt_too_long(self) -> bool:
        """Whether an order was sent or changed over this connection and nobody has confirmed that for long."""
        before = self._clock() - self._confirmed_within
        if any(at < before for _, _, at in self._changed_here.values()):
            return True
        if not self._sent_here:
            return False
        return any(
            one.status == "sent" and one.client_order_id in self._sent_here and one.sent_at and one.sent_at < before
            for one in self.ledger.unfinished(self.broker.name)
        )

    def _lacks_executions(self) -> bool:
        return self._untold_since is not None and time.monotonic() - self._untold_since > _TOLD_WITHIN

    # Reports -------------------------------------------------------------------------------------------------------

    def _take(self, reports: Sequence[Report]) -> bool:
        """Notes reports in the ledger; returns whether there were any that say something."""
        self._record(
            [one for one in reports if isinstance(one, Fill)], [one for one in reports if isinstance(one, Charge)]
        )
        refs = [one.order_ref for one in reports if isinstance(one, OrderReport | Refusal | Fill | Unplaced)]
        known = self.ledger.by_reference(refs)
        now, after = self._clock(), dict(known)
        for one in reports:
            if isinstance(one, OrderReport) and one.order_ref in known:
                after[one.order_ref] = self._confirmed(reported(after[one.order_ref], one, now), one)
            elif isinstance(one, Refusal) and one.order_ref in known:
                after[one.order_ref] = refused(after[one.order_ref], one, now)
                self._changed_here.pop(one.order_ref, None)
            elif isinstance(one, Unplaced):
                # A new connection is told which numbers are free, and its book says that the order is not there.
                self._broken = True
            elif isinstance(one, Link):
                self._agreed = False
                # Whoever takes the report in: the next turn connects anew.
                self._broken |= one.state == "closed"
                _log.warning("broker: %s %s", one.state, one.text)
            elif isinstance(one, Notice):
                self.notices = [*self.notices[-99:], one]
        if not known:
            return bool(refs)
        sums, changes = filled(list(after.values()), self.ledger.fills(list(known))), dict[str, dict[str, Any]]()
        lacking = False
        for ref, order in known.items():
            changed = counted(after[ref], sums.get(ref, 0.0), now)
            lacking |= not is_told_whole(changed, sums.get(ref, 0.0))
            self._note(changes, order, changed)
        self.ledger.change(changes)
        if lacking and self._untold_since is None:
            self._untold_since = time.monotonic()
        elif not lacking:
            self._untold_since = None
        return True

    def _confirmed(self, order: BrokerOrder, report: OrderReport) -> BrokerOrder:
        """The order with a change of it that the broker now tells as it was sent, or that came too late."""
        ref = order.client_order_id
        if ref not in self._changed_here:
            return order
        revision, ticket, _ = self._changed_here[ref]
        prices = [(ticket.limit, report.limit), (None if ticket.trail is not None else ticket.stop, report.stop)]
        same = abs(report.quantity - ticket.quantity) <= _DUST and all(
            one is None or (other is not None and abs(one - other) <= _DUST) for one, other in prices
        )
        if not same and not order.ended:
            return order
        del self._changed_here[ref]
        return replace(order, sent_revision=max(order.sent_revision, revision))

    def _record(self, fills: Iterable[Fill], charges: Iterable[Charge]) -> None:
        known = self.ledger.by_reference(one.order_ref for one in fills)
        rows = [
            BrokerFill(
                one.base, one.execution_id, self.broker.name, one.order_ref if one.order_ref in known else None,
                one.account, known[one.order_ref].symbol if one.order_ref in known else one.symbol, one.side,
                one.quantity, one.price, one.time, self._clock(),
            )
            for one in fills
            if one.account == self.broker.account
        ]  # fmt: skip
        if rows:
            self.ledger.record_fills(rows)
        self.ledger.record_charges({one.execution_id: (one.commission, one.currency) for one in charges})

    @staticmethod
    def _note(changes: dict[str, dict[str, Any]], before: BrokerOrder, after: BrokerOrder) -> None:
        changed = {name: getattr(after, name) for name in _FIELDS if getattr(after, name) != getattr(before, name)}
        if changed:
            changes.setdefault(before.client_order_id, {}).update(changed)

    # Orders --------------------------------------------------------------------------------------------------------

    def _send(self) -> bool:
        """Sends what is to be sent: cancellations first, then changes, then new orders."""
        waiting = [one for one in self.ledger.unfinished(self.broker.name) if not one.ended]
        self._end_unsent(waiting)
        if not waiting or not self.may_send:
            return False
        cancelled = [
            one.client_order_id
            for one in waiting
            if one.wanted == "cancelled" and one.status == "working" and one.client_order_id not in self._cancelled_here
        ]
        if cancelled:
            self._cancelled_here.update(cancelled)
            self.broker.cancel(cancelled)
        # Until a cancellation or a change is confirmed the order may be filled as it was: nothing else of the symbol is
        # sent before.
        leaving = {
            (one.strategy, one.symbol)
            for one in waiting
            if one.wanted == "cancelled" or (one.status == "working" and one.revision > one.sent_revision)
        }
        now = self._clock()
        new = [
            one
            for one in waiting
            if one.status == "written"
            and one.wanted == "working"
            and now < one.expires_at
            and (one.strategy, one.symbol) not in leaving
        ]
        changed = [
            one for one in waiting
            if one.status == "working" and one.wanted == "working" and one.revision > self._changed(one)
        ]  # fmt: skip
        if not new and not changed:
            return bool(cancelled)
        tickets = self._tickets([*changed, *new])
        for one in changed:
            if one.client_order_id in tickets:
                # A change can be sent twice and does no harm: it counts as sent when the broker tells it.
                self._changed_here[one.client_order_id] = (one.revision, tickets[one.client_order_id], now)
                self.broker.replace(tickets[one.client_order_id])
        going = [one.client_order_id for one in new if one.client_order_id in tickets]
        marked = self.ledger.mark_sent(going, self.broker.account)
        self._sent_here.update(marked)
        if marked:
            self.broker.place([tickets[ref] for ref in marked])
        return True

    def _changed(self, order: BrokerOrder) -> int:
        """The newest revision that was sent over this connection, or is known to the broker."""
        return max(order.sent_revision, self._changed_here.get(order.client_order_id, (0,))[0])

    def _end_unsent(self, waiting: Sequence[BrokerOrder]) -> None:
        """Ends orders that were never sent: called back before, or too late now."""
        now, changes = self._clock(), dict[str, dict[str, Any]]()
        for one in waiting:
            if one.status != "written":
                continue
            if one.wanted == "cancelled":
                ended = replace(one, status="cancelled", reason="called back before it was sent", ended_at=now)
            elif now >= one.expires_at:
                ended = replace(
                    one, status="rejected", reason="late: its time was over before it was sent", ended_at=now
                )
            else:
                continue
            self._note(changes, one, ended)
        self.ledger.change(changes)

    def _tickets(self, orders: Sequence[BrokerOrder]) -> dict[str, Ticket]:
        """Orders as they are sent, by client order id; those that can't be are rejected."""
        traded = {one.client_order_id: self._traded(one) for one in orders}
        listings = self.broker.listings(list(dict.fromkeys(one for one in traded.values() if one is not None)))
        now, changes, tickets = self._clock(), dict[str, dict[str, Any]](), dict[str, Ticket]()
        room = self.book.values.buying_power
        for order in orders:
            asked = traded[order.client_order_id]
            listing = listings.get(asked) if asked is not None else None
            wrong = _fault(order, listing, self.book.values, room)
            if wrong is not None:
                if order.status == "working":
                    after = replace(order, reason=wrong, sent_revision=order.revision)
                else:
                    after = replace(order, status="rejected", reason=wrong, ended_at=now)
                self._note(changes, order, after)
                continue
            assert isinstance(listing, Listing)
            if room is not None and order.opens and order.reference_price:
                room -= order.quantity * order.reference_price
            tickets[order.client_order_id] = ticket_of(order, listing)
        self.ledger.change(changes)
        return tickets


def _fault(
    order: BrokerOrder, listing: Listing | RefusedInstrument | None, values: Values, room: float | None
) -> str | None:
    """Why an order can't be sent, None where it can."""
    if listing is None:
        return f"{order.symbol} is not in the universe any more"
    if isinstance(listing, RefusedInstrument):
        return str(listing)
    if not listing.fractions and abs(order.quantity - round(order.quantity)) > _DUST:
        return f"{order.quantity:g} shares: the broker takes no parts of a share"
    if values.currency and listing.currency != values.currency:
        return f"{order.symbol} is traded in {listing.currency} and the account is in {values.currency}"
    if room is not None and order.opens and order.reference_price:
        cost = order.quantity * order.reference_price
        if cost > room:
            return f"{cost:,.2f} {values.currency} is above the buying power that is left, {room:,.2f}"
    return None


def ticket_of(order: BrokerOrder, listing: Listing) -> Ticket:
    """The order as it is sent: prices on the grid of ticks, never worse than asked for."""
    buys = order.side > 0
    return Ticket(
        order.client_order_id,
        listing,
        order.side,
        order.quantity,
        order.type,
        order.time_in_force,
        None if order.limit_price is None else on_tick(order.limit_price, listing.tick, down=buys),
        None if order.stop_price is None else on_tick(order.stop_price, listing.tick, down=not buys),
        order.trail,
        order.oca_group,
    )


def on_tick(price: float, tick: float, *, down: bool) -> float:
    """A price on the grid; one that is within a millionth of a tick is on it."""
    steps = price / tick
    whole = round(steps) if abs(steps - round(steps)) < 1e-6 else math.floor(steps) if down else math.ceil(steps)
    return round(whole * tick, 10)


def _unknown(
    book: Book, known: Mapping[str, BrokerOrder], traces: Mapping[str, Sequence[OrderReport]]
) -> list[Unknown]:
    """What the ledger does not know of the book, and references under which the broker has several orders."""
    found = [
        Unknown("order", f"{one.symbol} {'buy' if one.side > 0 else 'sell'} {one.quantity:g}, {one.status}"
                f"{f', reference {one.order_ref}' if one.order_ref else ''}, permanent id {one.permanent_id}")
        for one in book.open if one.order_ref not in known
    ]  # fmt: skip
    found += [
        Unknown("execution", f"{one.symbol} {'bought' if one.side > 0 else 'sold'} {one.quantity:g} at {one.price:g}, "
                f"{one.execution_id}")
        for one in book.fills if one.order_ref not in known
    ]  # fmt: skip
    for ref, entries in traces.items():
        numbers = {one.permanent_id for one in entries if one.status not in ("rejected",)}
        if ref in known and len(numbers) > 1:
            found.append(Unknown("sent_twice", f"{ref} is {len(numbers)} orders at the broker"))
    return found
