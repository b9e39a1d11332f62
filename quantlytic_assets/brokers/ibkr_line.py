"""One connection with TWS or IB Gateway: what its messages say, and what is asked of it.

The library's client decodes and encodes; what a message means is decided here.
"""

from __future__ import annotations

import asyncio
import logging
import math
import queue
from datetime import UTC, datetime
from importlib import import_module
from types import ModuleType
from typing import Any, TypeVar

from quantlytic_assets.brokers import ibkr_codes as codes
from quantlytic_assets.brokers.paper_guard import PaperGuard
from quantlytic_assets.brokers.protocol import (
    BrokerError,
    Charge,
    Fill,
    Holding,
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
from quantlytic_assets.vendors.ibkr import ibkr_contract

T = TypeVar("T")

_TYPES = {
    "market": "MKT",
    "limit": "LMT",
    "stop": "STP",
    "stop_limit": "STP LMT",
    "trailing_stop": "TRAIL",
    "market_on_open": "MKT",
    "market_on_close": "MOC",
}
_FORCES = {"day": "DAY", "gtc": "GTC", "ioc": "IOC"}
_VALUES = {
    "NetLiquidation": "equity",
    "TotalCashValue": "cash",
    "BuyingPower": "buying_power",
    "GrossPositionValue": "gross",
}
# The others of a group are cancelled when one of them is filled, and shrunk while it is filled in part.
_OCA_REDUCES = 2
# A price that is not given has the largest number there is.
_UNSET = 1e300


class Line:
    """One connection as the library's client tells it: what it calls with each message, and what that amounts to.

    Methods in the library's spelling are those that its decoder calls; of other messages nothing is wanted.
    """

    TimezoneTWS = None
    defaultTimezone = UTC

    def __init__(self, library: ModuleType, guard: PaperGuard, reports: queue.SimpleQueue[Report]):
        self.library = library
        self.ib = self
        self.accounts: list[str] = []
        self.ids: dict[str, int] = {}
        self.listings: dict[Traded, Listing | RefusedInstrument] = {}
        self._guard, self._reports = guard, reports
        self._refs: dict[int, str] = {}
        self._orders: dict[tuple[int, int], OrderReport] = {}
        self._values: dict[tuple[str, str], tuple[float, str]] = {}
        self._waiting: dict[Any, asyncio.Future[None]] = {}
        self._collected: dict[Any, list[Any]] = {}
        self._contracts: dict[int, Any] = {}
        self._charges: dict[str, Charge] = {}
        self._closed: BrokerError | None = None
        self._refused: BrokerError | None = None
        self._linked = True
        self.client_id = -1
        # The client asks its wrapper for all that it may call when it is made.
        self.client = import_module(f"{library.__name__}.client").Client(self)
        # It logs what is an error of ours as well, with a traceback; a message that can't be read is still logged.
        logging.getLogger(f"{library.__name__}.client").setLevel(logging.CRITICAL)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name in ("priceSizeTick", "tcpDataArrived", "tcpDataProcessed"):
            raise AttributeError(name)
        return _ignore

    @property
    def usable(self) -> bool:
        """Whether orders can be sent."""
        return self._closed is None and self._linked and self.client.isReady()

    def say(self, report: Report) -> None:
        """Puts a report where the broker's caller finds it."""
        self._reports.put(report)

    async def open(self, host: str, port: int, client_id: int, seconds: float) -> None:
        """Connects. Raises `BrokerError` where nobody listens, nobody answers, or the client id is taken."""
        self.client_id = client_id
        ended = self._future("closed")
        connecting = asyncio.ensure_future(self.client.connectAsync(host, port, client_id, seconds))
        await asyncio.wait({connecting, ended}, timeout=seconds + 1, return_when=asyncio.FIRST_COMPLETED)
        if not connecting.done():
            connecting.cancel()
        result = (await asyncio.gather(connecting, return_exceptions=True))[0]
        if self._refused is not None:
            raise self._refused
        if isinstance(result, BaseException) or not self.client.isReady():
            raise BrokerError(
                f"TWS or IB Gateway does not answer on {host}:{port}: start its paper session with the API enabled, or "
                "set QUANTLYTIC_IBKR_PAPER_HOST and QUANTLYTIC_IBKR_PAPER_PORT (Gateway 4002, TWS 7497)",
                retryable=True,
            )
        self.accounts = list(self.client.getAccounts())

    def close(self) -> None:
        """Ends the connection."""
        self._closed = self._closed or BrokerError("the connection was closed", retryable=True)
        self.client.disconnect()

    # Questions --------------------------------------------------------------------------------------------------------

    def _future(self, key: Any) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[key] = future
        return future

    async def answered(self, key: Any, seconds: float) -> None:
        """Waits for the end of an answer. Raises `BrokerError` where it does not come, or the connection ends."""
        future = self._waiting.get(key) or self._future(key)
        try:
            await asyncio.wait_for(asyncio.shield(future), seconds)
        except TimeoutError:
            raise BrokerError(f"TWS did not answer within {seconds:g} s", retryable=True) from None
        finally:
            self._waiting.pop(key, None)
        if self._closed is not None:
            raise self._closed

    def _answer(self, key: Any) -> None:
        future = self._waiting.get(key)
        if future is not None and not future.done():
            future.set_result(None)

    async def collect(self, key: Any, ask: Any, seconds: float) -> list[Any]:
        """All that comes until the end of an answer."""
        self._collected[key] = []
        self._future(key)
        try:
            ask()
            await self.answered(key, seconds)
            return self._collected[key]
        finally:
            self._collected.pop(key, None)

    async def executions(self, number: int, ask: Any, seconds: float) -> tuple[list[Fill], list[Charge]]:
        """The executions of the day, with those of their commissions that are known."""
        fills: list[Fill] = await self.collect(number, ask, seconds)
        return fills, [self._charges[one.execution_id] for one in fills if one.execution_id in self._charges]

    async def listing(self, traded: Traded, seconds: float) -> Listing | RefusedInstrument:
        """What TWS makes of a symbol."""
        wanted = ibkr_contract(traded.symbol, traded.calendar, traded.name)
        name_it = "name its contract in universe.yaml, such as names: {ibkr: STK:VOD/GBP@LSE}"
        if wanted is None or wanted.kind == "IND":
            return RefusedInstrument(f"{traded.symbol} has no contract that can be traded: {name_it}")
        number = self.client.getReqId()
        contract = self.library.Contract(
            secType=wanted.kind,
            symbol=wanted.symbol,
            currency=wanted.currency,
            exchange=wanted.exchange,
            primaryExchange=wanted.primary,
        )
        found = await self.collect(number, lambda: self.client.reqContractDetails(number, contract), seconds)
        if not found:
            return RefusedInstrument(f"IBKR knows no contract {wanted.kind} {wanted.symbol}: {name_it}")
        if len({one.contract.conId for one in found}) > 1:
            where = ", ".join(sorted({one.contract.primaryExchange or one.contract.exchange for one in found}))
            return RefusedInstrument(f"{wanted.symbol} is ambiguous at IBKR (listed at {where}): {name_it}")
        details = found[0]
        self._contracts[details.contract.conId] = self.library.Contract(
            conId=details.contract.conId,
            secType=wanted.kind,
            symbol=details.contract.symbol,
            currency=details.contract.currency,
            exchange=wanted.exchange,
            primaryExchange=wanted.primary,
        )
        return Listing(
            traded, details.contract.conId, details.contract.currency, details.minTick or 0.01, wanted.kind != "STK"
        )

    # Orders -----------------------------------------------------------------------------------------------------------

    def contract(self, listing: Listing) -> Any:
        """The library's contract of a listing."""
        return self._contracts[listing.number]

    def names(self, ref: str, order_id: int) -> None:
        """Notes under which number an order is known here."""
        self.ids[ref] = order_id
        self._refs[order_id] = ref

    def order(self, ticket: Ticket, order_id: int, account: str) -> Any:
        """The library's order of a ticket: account, time in force and reference are always given."""
        order = self.library.Order(
            orderId=order_id,
            clientId=self.client_id,
            action="BUY" if ticket.side > 0 else "SELL",
            totalQuantity=ticket.quantity,
            orderType=_TYPES[ticket.type],
            tif="OPG" if ticket.type == "market_on_open" else _FORCES[ticket.time_in_force],
            account=account,
            orderRef=ticket.order_ref,
            outsideRth=False,
            transmit=True,
        )
        if ticket.limit is not None:
            order.lmtPrice = ticket.limit
        if ticket.type == "trailing_stop":
            order.trailingPercent = round(100.0 * (ticket.trail or 0.0), 6)
            if ticket.stop is not None:
                order.trailStopPrice = ticket.stop
        elif ticket.stop is not None:
            order.auxPrice = ticket.stop
        if ticket.group:
            order.ocaGroup, order.ocaType = ticket.group, _OCA_REDUCES
        return order

    def values(self, account: str) -> Values:
        """The newest values of the account, in its base currency."""
        base = self._values.get((account, "NetLiquidation"), (0.0, ""))[1]
        known = {field: self._values.get((account, tag)) for tag, field in _VALUES.items()}
        return Values(account, base, **{field: told[0] for field, told in known.items() if told is not None})

    # Messages ---------------------------------------------------------------------------------------------------------

    def managedAccounts(self, told: str) -> None:
        """The accounts of the session, which may be told at any time."""
        self.accounts = [one for one in told.split(",") if one]
        self._guard.saw(self.accounts)

    def error(self, number: int, code: int, text: str, _advanced: str = "", *_: object) -> None:
        """An error, or a notice, of a question, an order or the connection."""
        said = f"{code} {' '.join(text.split())}"
        if number in self._collected:
            # A question that has no answer; of an unknown contract it is an empty one.
            if codes.meaning(code) != "notice":
                self._answer(number)
            return
        ref = self._refs.get(number)
        if ref is not None:
            self._about_order(ref, code, said)
        elif code in codes.LINK_LOST:
            self._linked = False
            self.say(Link("lost", said))
        elif code in codes.LINK_BACK:
            self._linked = True
            self.say(Link("back", said))
        elif code in codes.CONNECT_REFUSED and not self.client.isReady():
            hint = "; another program is connected with it: set QUANTLYTIC_IBKR_PAPER_CLIENT_ID" if code == 326 else ""
            # Who was killed may be connected for a moment longer.
            self._refused = BrokerError(f"TWS refused the connection: {said}{hint}", retryable=True)
            self._end(self._refused)
        else:
            self.say(Notice(code, said))

    def _about_order(self, ref: str, code: int, said: str) -> None:
        meaning = codes.meaning(code)
        if meaning == "refused":
            self.say(Refusal(ref, code, said))
        elif meaning == "unplaced":
            self.say(Unplaced(ref, said))
        elif meaning == "cancelled":
            known = self._orders.get((self.client_id, self.ids.get(ref, 0)))
            self.say(OrderReport(ref, "cancelled", known.filled if known else 0.0, text=said))
        else:
            self.say(Notice(code, said, ref))

    def openOrder(self, order_id: int, contract: Any, order: Any, state: Any) -> None:
        """An order that works, of this client or of another; how far it is comes with its status."""
        self._guard.saw([order.account])
        ref = order.orderRef
        if order.clientId == self.client_id and ref:
            self.names(ref, order_id)
        report = OrderReport(
            ref,
            codes.status(state.status, "unknown"),
            quantity=order.totalQuantity,
            order_id=order_id,
            permanent_id=order.permId,
            known_to=order.clientId,
            account=order.account,
            symbol=contract.symbol,
            side=1 if order.action == "BUY" else -1,
            limit=_price(order.lmtPrice) if order.orderType in ("LMT", "STP LMT") else None,
            stop=_price(order.auxPrice) if order.orderType in ("STP", "STP LMT") else None,
        )
        self._orders[(order.clientId, order_id)] = report
        if "open" in self._collected:
            self._collected["open"].append(report)

    def orderStatus(
        self,
        order_id: int,
        word: str,
        filled: float,
        remaining: float,
        average: float,
        permanent_id: int,
        _parent: int,
        _last: float,
        client: int,
        held_for: str,
        *_: object,
    ) -> None:
        """How an order stands."""
        known = self._orders.get((client, order_id))
        ref = self._refs.get(order_id) if client == self.client_id else known.order_ref if known else None
        report = OrderReport(
            ref or "",
            codes.status(word, held_for),
            float(filled),
            float(filled) + float(remaining),
            float(average),
            order_id,
            permanent_id,
            client,
            held_for,
            account=known.account if known else "",
            symbol=known.symbol if known else "",
            side=known.side if known else 0,
            limit=known.limit if known else None,
            stop=known.stop if known else None,
            text="Inactive" if word == "Inactive" else "",
        )
        self._orders[(client, order_id)] = report
        opened = self._collected.get("open")
        if opened is not None:
            # The answer to the question for open orders says each one twice: what it is, and how far.
            opened[:] = [one for one in opened if (one.known_to, one.order_id) != (client, order_id)] + [report]
        if ref:
            self.say(report)

    def openOrderEnd(self) -> None:
        """The end of the open orders."""
        self._answer("open")

    def completedOrder(self, contract: Any, order: Any, state: Any) -> None:
        """An order of the day that has ended; TWS does not say its number here."""
        self._guard.saw([order.account])
        if "ended" in self._collected:
            filled = order.filledQuantity
            self._collected["ended"].append(
                OrderReport(
                    order.orderRef,
                    codes.status(state.status),
                    float(filled) if filled < _UNSET else 0.0,
                    float(order.totalQuantity) or (float(filled) if filled < _UNSET else 0.0),
                    permanent_id=order.permId,
                    account=order.account,
                    symbol=contract.symbol,
                    side=1 if order.action == "BUY" else -1,
                    text=state.completedStatus,
                )
            )

    def completedOrdersEnd(self) -> None:
        """The end of the ended orders."""
        self._answer("ended")

    def execDetails(self, number: int, contract: Any, told: Any) -> None:
        """An execution, as it happens (of this client's orders) or as an answer (of all)."""
        self._guard.saw([told.acctNumber])
        fill = Fill(
            told.execId,
            told.orderRef or self._refs.get(told.orderId, ""),
            told.acctNumber,
            contract.symbol,
            contract.conId,
            1 if told.side == "BOT" else -1,
            float(told.shares),
            float(told.price),
            told.time.astimezone(UTC) if isinstance(told.time, datetime) else datetime.now(UTC),
            told.permId,
            told.orderId,
        )
        if number in self._collected:
            self._collected[number].append(fill)
        else:
            self.say(fill)

    def execDetailsEnd(self, number: int) -> None:
        """The end of the executions."""
        self._answer(number)

    def commissionReport(self, told: Any) -> None:
        """The commission of an execution."""
        charge = Charge(told.execId, float(told.commission), told.currency)
        self._charges[told.execId] = charge
        self.say(charge)

    def position(self, account: str, contract: Any, quantity: float, average: float) -> None:
        """A position; told once asked for, and whenever one changes after that."""
        self._guard.saw([account])
        if "holdings" in self._collected:
            self._collected["holdings"].append(
                Holding(account, contract.symbol, contract.conId, float(quantity), float(average), contract.currency)
            )

    def positionEnd(self) -> None:
        """The end of the positions."""
        self._answer("holdings")

    def contractDetails(self, number: int, details: Any) -> None:
        """A contract that answers to a description."""
        if number in self._collected:
            self._collected[number].append(details)

    def contractDetailsEnd(self, number: int) -> None:
        """The end of the contracts."""
        self._answer(number)

    def updateAccountValue(self, tag: str, value: str, currency: str, account: str) -> None:
        """A figure of the account."""
        self._guard.saw([account])
        if tag in _VALUES and currency != "BASE":
            number = float(value)
            if math.isfinite(number):
                self._values[(account, tag)] = (number, currency)

    def accountDownloadEnd(self, _account: str) -> None:
        """The end of the account's figures."""
        self._answer("account")

    def setEventsDone(self) -> None:
        """The connection has ended, whether or not it had begun."""
        self._end(BrokerError("TWS closed the connection", retryable=True))

    def _end(self, reason: BrokerError) -> None:
        first = self._closed is None
        self._closed = self._closed or reason
        if first:
            self.say(Link("closed", str(reason)))
        for future in list(self._waiting.values()):
            if not future.done():
                future.set_result(None)


def _price(told: float | None) -> float | None:
    return None if told is None or told >= _UNSET else float(told)


def _ignore(*_args: object, **_named: object) -> None:
    """A message that nobody wants."""
