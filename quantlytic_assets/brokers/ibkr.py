"""The broker `ibkr`: a paper account at Interactive Brokers through a running TWS or IB Gateway.

The library (ib_async, or ib_insync where only that is there) speaks the wire; what its messages mean is decided here,
from the messages themselves, because the library's own picture of an order can be wrong: it takes a notice for the end
of an order, or waits for ever for one that was refused. A connection lives in a thread with an event loop of its own.

An account has one connection at a time, with a client id that stays the same. TWS refuses a second connection with it,
so that it has read all that an earlier one sent before it answers a new one: an order of which it then has no trace
never arrived.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Coroutine, Iterable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as LateError
from typing import Any, TypeVar

from quantlytic_assets.brokers.ibkr_line import Line
from quantlytic_assets.brokers.paper_guard import PaperGuard
from quantlytic_assets.brokers.protocol import (
    Book,
    BrokerError,
    Listing,
    Notice,
    RefusedInstrument,
    Report,
    Ticket,
    Traded,
)
from quantlytic_assets.vendors.ibkr import ibkr_library

T = TypeVar("T")


class IbkrBroker:
    """See `Broker`. `seconds`: how long TWS may take for an answer; `guard`: see `paper_guard`."""

    name = "ibkr"

    def __init__(self, guard: PaperGuard, host: str, port: int, client_id: int, seconds: float = 20.0):
        self._guard = guard
        self.account = guard.account
        self.client_id = client_id
        self._where = (host, port)
        self._seconds = seconds
        self._reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._line: Line | None = None

    # The connection ---------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """See `Broker.connect`."""
        self.close()
        self._start_thread()
        self._reports = queue.SimpleQueue()
        try:
            self._call(self._open(), self._seconds + 5)
        except BaseException:
            self.close()
            raise

    async def _open(self) -> None:
        library = ibkr_library()
        line = Line(library, self._guard, self._reports)
        self._line = line
        await line.open(*self._where, self.client_id, self._seconds)
        self._guard.check(line.accounts, self.account)
        line.client.reqAccountUpdates(True, self.account)
        await line.answered("account", self._seconds)

    def close(self) -> None:
        """See `Broker.close`."""
        loop, thread, line = self._loop, self._thread, self._line
        self._loop = self._thread = self._line = None
        if loop is None or thread is None:
            return

        def end() -> None:
            if line is not None:
                line.close()
            # A turn later, so that the last bytes and the end of the connection are on their way.
            loop.call_later(0.01, loop.stop)

        loop.call_soon_threadsafe(end)
        thread.join(5)

    @property
    def connected(self) -> bool:
        """See `Broker.connected`."""
        return self._line is not None and self._line.usable

    def _start_thread(self) -> None:
        ready = threading.Event()
        loop = asyncio.new_event_loop()

        def run() -> None:
            asyncio.set_event_loop(loop)
            loop.call_soon(ready.set)
            loop.run_forever()
            left = asyncio.all_tasks(loop)
            for one in left:
                one.cancel()
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            loop.close()

        self._thread = threading.Thread(target=run, name="ibkr-orders", daemon=True)
        self._loop = loop
        self._thread.start()
        ready.wait()

    def _call(self, coroutine: Coroutine[Any, Any, T], seconds: float | None = None) -> T:
        """The result of a coroutine in the connection's thread."""
        if self._loop is None:
            coroutine.close()
            raise BrokerError("not connected to TWS or IB Gateway", retryable=True)
        future: Future[T] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result(seconds or 4 * self._seconds)
        except (LateError, TimeoutError):
            future.cancel()
            raise BrokerError(f"TWS did not answer within {self._seconds:g} s", retryable=True) from None
        except OSError as error:
            raise BrokerError(f"the connection to TWS broke: {type(error).__name__}", retryable=True) from None

    def _open_line(self) -> Line:
        line = self._line
        if line is None or not line.usable:
            raise BrokerError("the connection to TWS, or of TWS to Interactive Brokers, is lost", retryable=True)
        return line

    # Orders -----------------------------------------------------------------------------------------------------------

    def listings(self, wanted: Sequence[Traded]) -> dict[Traded, Listing | RefusedInstrument]:
        """See `Broker.listings`."""
        return self._call(self._listings(wanted)) if wanted else {}

    async def _listings(self, wanted: Sequence[Traded]) -> dict[Traded, Listing | RefusedInstrument]:
        line = self._open_line()
        missing = [one for one in dict.fromkeys(wanted) if one not in line.listings]
        found = await asyncio.gather(*(line.listing(one, self._seconds) for one in missing))
        line.listings.update(zip(missing, found, strict=True))
        return {one: line.listings[one] for one in wanted}

    def place(self, tickets: Sequence[Ticket]) -> None:
        """See `Broker.place`."""
        self._call(self._send(tickets))

    def replace(self, ticket: Ticket) -> None:
        """See `Broker.replace`."""
        self._call(self._send([ticket], again=True))

    async def _send(self, tickets: Iterable[Ticket], again: bool = False) -> None:
        line = self._open_line()
        for ticket in tickets:
            order_id = line.ids.get(ticket.order_ref) if again else line.client.getReqId()
            if order_id is None:
                line.say(
                    Notice(0, "the order was sent by another client id, which alone can change it", ticket.order_ref)
                )
                continue
            contract, order = line.contract(ticket.listing), line.order(ticket, order_id, self.account)
            # The one place from which an order goes out.
            self._guard.check(line.accounts, order.account)
            line.names(ticket.order_ref, order_id)
            line.client.placeOrder(order_id, contract, order)

    def cancel(self, order_refs: Sequence[str]) -> None:
        """See `Broker.cancel`."""

        async def send() -> None:
            line = self._open_line()
            for ref in order_refs:
                order_id = line.ids.get(ref)
                if order_id is None:
                    text = "the order was sent by another client id, which alone can cancel it"
                    line.say(Notice(0, text, ref))
                else:
                    self._guard.check(line.accounts, self.account)
                    line.client.cancelOrder(order_id)

        self._call(send())

    # What the broker knows --------------------------------------------------------------------------------------------

    def book(self) -> Book:
        """See `Broker.book`."""
        return self._call(self._book())

    async def _book(self) -> Book:
        line = self._open_line()
        opened = await line.collect("open", line.client.reqAllOpenOrders, self._seconds)
        ended = await line.collect("ended", lambda: line.client.reqCompletedOrders(False), self._seconds)
        number = line.client.getReqId()
        wanted = line.library.ExecutionFilter(acctCode=self.account)
        ask = lambda: line.client.reqExecutions(number, wanted)  # noqa: E731
        fills, charges = await line.executions(number, ask, self._seconds)
        holdings = await line.collect("holdings", line.client.reqPositions, self._seconds)
        own = [one for one in holdings if one.account == self.account and one.quantity != 0]
        # TWS tells the figures now and then, and all of them to who begins to ask.
        line.client.reqAccountUpdates(False, self.account)
        line.client.reqAccountUpdates(True, self.account)
        await line.answered("account", self._seconds)
        return Book(opened, ended, fills, charges, own, line.values(self.account))

    def reports(self, seconds: float) -> list[Report]:
        """See `Broker.reports`."""
        found: list[Report] = []
        try:
            found.append(self._reports.get(timeout=seconds) if seconds > 0 else self._reports.get_nowait())
            while True:
                found.append(self._reports.get_nowait())
        except queue.Empty:
            return found
