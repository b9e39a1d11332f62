"""A loopback TWS that takes orders: its book survives connections, and it goes wrong on demand.

It speaks the same protocol as `tws_server`, which it extends with orders, executions, positions and account values.
Nothing of the package's own code is used. Controls may be called from any thread; they return when they are done.

What is an assumption about IB, for nobody here has asked the real one: an order's status is told twice, requests for
executions get those of all clients, and commissions of one's own; ended orders and executions are those of the day.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import struct
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from quantlytic_tests.vendors.tws_server import CONTRACT_FIELDS, Client, Instrument, TwsServer

_HUGE, _NO_NUMBER = "1.7976931348623157E308", "2147483647"
READ_ONLY = "Error validating request.-'bW' : cause - The API interface is currently in Read-Only mode."

# An order as a client sends it, after its number and contract.
_SENT = (
    "sec_id_type", "sec_id", "action", "quantity", "type", "limit", "aux", "tif", "oca_group", "account", "open_close",
    "origin", "ref", "transmit", "parent", "block", "sweep", "display", "trigger", "outside_hours", "hidden", "shares",
    "discretionary", "good_after", "good_till", "fa_group", "fa_method", "fa_percentage", "fa_profile<177", "model",
    "short_slot", "location", "exempt", "oca_type", "rule_80a", "settling", "all_or_none", "min_quantity",
    "percent_offset", "e_trade", "firm_quote", "nbbo_cap", "auction", "starting", "stock_ref", "delta", "range_low",
    "range_high", "override", "volatility", "volatility_type", "neutral_type", "neutral_aux", "continuous",
    "reference_type", "trail_stop", "trail_percent",
)  # fmt: skip
# How an order is told, working (5) and ended (101): a name with its value, "=" and a default, "<177" only before that
# version and ">170" only from it on. H and N stand for numbers that are not set.
_CONTRACT = "con_id symbol kind expiry= strike=0 right=? multiplier= exchange=SMART currency local_symbol class=NMS"
_TOLD = "action quantity type limit aux tif oca_group account open_close= origin=0 ref"
_TOLD_OPEN = (
    f"order_id {_CONTRACT} {_TOLD} client perm outside_hours hidden=0 discretionary=0 good_after= skipped= fa_group= "
    "fa_method= fa_percentage= fa_profile<177= model= good_till= rule_80a= percent_offset=H settling= short_slot=0 "
    "location= exempt=-1 auction=0 starting=H stock_ref=H delta=H range_low=H range_high=H display=N block=0 sweep=0 "
    "all_or_none=0 min_quantity=N oca_type=3 e_trade=0 firm_quote=0 nbbo_cap=H parent trigger=0 volatility=H "
    "volatility_type=0 neutral_type=None neutral_aux=H neutral_con=0 neutral_settling= neutral_account= "
    "neutral_intent= neutral_open=? neutral_short=0 neutral_slot=0 neutral_location= continuous=0 reference_type=0 "
    "trail_stop=H trail_percent=H basis=H basis_type=N legs_text= legs=0 order_legs=0 smart=0 scale_first=N "
    "scale_next=N scale_step=H hedge= opt_out=0 clearing= intent=IB not_held=0 neutral=0 algo= solicited=0 what_if=0 "
    "status b1=H b2=H b3=H c1=H c2=H c3=H a1=H a2=H a3=H fee=H fee_low=H fee_high=H fee_currency= warning= "
    "random_size=0 random_price=0 conditions=0 adjusted=None adj1=H adj2=H adj3=H adj4=H adj5=H adj6=H adj7=0 tier= "
    "tier_value= tier_name= cash_quantity=0 no_price=1 oms=0 discretion=0 managed=0 duration>158=N post>160=N "
    "auto_cancel>162=0 min_trade>170=N min_compete>170=N compete>170=H mid_whole>170=H mid_half>170=H"
).split()
_TOLD_ENDED = (
    f"{_CONTRACT} {_TOLD} perm outside_hours hidden=0 discretionary=0 good_after= fa_group= fa_method= fa_percentage= "
    "fa_profile<177= model= good_till= rule_80a= percent_offset=H settling= short_slot=0 location= exempt=-1 "
    "starting=H stock_ref=H delta=H range_low=H range_high=H display=N sweep=0 all_or_none=0 min_quantity=N oca_type=3 "
    "trigger=0 volatility=H volatility_type=0 neutral_type=None neutral_aux=H neutral_con=0 neutral_short=0 "
    "neutral_slot=0 neutral_location= continuous=0 reference_type=0 trail_stop=H trail_percent=H legs_text= legs=0 "
    "order_legs=0 smart=0 scale_first=N scale_next=N scale_step=H hedge= clearing= intent=IB not_held=0 neutral=0 "
    "algo= solicited=0 status random_size=0 random_price=0 conditions=0 adj2=H adj4=H cash_quantity=0 no_price=1 oms=0 "
    "auto_date= filled ref_future=N auto_cancel=0 shareholder= imbalance=0 route=0 parent_perm=0 ended_at ended_status "
    "min_trade>170=N min_compete>170=N compete>170=H mid_whole>170=H mid_half>170=H"
).split()
ENDED = ("Filled", "Cancelled", "Inactive")


def _laid_out(names: Sequence[str], values: dict[str, Any], version: int) -> list[Any]:
    told = []
    for one in names:
        name, _, default = one.partition("=")
        for sign in "<>":
            name, found, bound = name.partition(sign)
            if found and (version < int(bound)) != (sign == "<"):
                break
        else:
            told.append(values.get(name, {"H": _HUGE, "N": _NO_NUMBER}.get(default, default)))
    return told


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


@dataclass
class BookOrder:
    """An order in the book; `sent` is what the client last said, by the names of `_SENT`."""

    order_id: int
    client: int
    perm: int
    instrument: Instrument
    sent: dict[str, str]
    status: str = "PendingSubmit"
    filled: float = 0.0
    average: float = 0.0
    last: float = 0.0
    held_for: str = ""
    triggered: bool = False
    best: float | None = None
    ended_at: str = ""
    ended_day: int = 0
    slices: list[tuple[float, float | None]] = field(default_factory=list)

    @property
    def ref(self) -> str:
        """The client's reference."""
        return self.sent["ref"]

    @property
    def quantity(self) -> float:
        """How much of it was ordered."""
        return float(self.sent["quantity"])

    @property
    def side(self) -> int:
        """1 buys, -1 sells."""
        return 1 if self.sent["action"] == "BUY" else -1

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self.status in ENDED


@dataclass
class BookFill:
    """An execution in the book."""

    order: BookOrder
    number: int
    quantity: float
    price: float
    time: str
    day: int
    cumulative: float
    average: float
    commission: float
    revision: int = 1

    @property
    def id(self) -> str:
        """The execution's id; a correction changes what is after its last dot."""
        return f"0000e0d5.{self.number:08x}.01.{self.revision:02d}"


class TwsBook(TwsServer):
    """Takes orders for `accounts[0]` and fills them at `prices`.

    frozen: nothing is answered. lost: what is sent is not even read. closed: outside regular hours. read_only: orders
    are refused. auto_fill: orders are filled as soon as their price allows. refusals: by symbol, code and text for its
    next order. notices: likewise, of an order that is taken all the same. slices: by symbol, how its next order is
    filled. untaken: by symbol, code and text of an error with which its next order is not taken at all. cut_before,
    cut_after: how many more orders cut the line, unread or taken. cut_in: the how many-th message from now on cuts it
    unread. cuts: how many lines were cut. repeats: how often status and executions are told. stealthy: executions are
    told when asked for, not as they happen. late_charges: commissions are told when `charge_all` is called. halted:
    symbols in which nothing is filled.
    """

    def __init__(self, instruments: Sequence[Instrument], version: int = 178, cash: float = 1e6):
        super().__init__(instruments, version=version)
        self.cash, self.commission = cash, 1.0
        self.margin = 4.0
        self.prices: dict[str, float] = {}
        self.orders: list[BookOrder] = []
        self.fills: list[BookFill] = []
        self.holdings: dict[int, tuple[float, float]] = {}
        self.received: list[tuple[int, list[str]]] = []
        self.frozen = self.lost = self.closed = self.read_only = self.stealthy = self.late_charges = False
        self.auto_fill = True
        self.refusals: dict[str, tuple[int, str]] = {}
        self.notices: dict[str, tuple[int, str]] = {}
        self.untaken: dict[str, tuple[int, str]] = {}
        self.slices: dict[str, list[tuple[float, float | None]]] = {}
        self.halted: set[str] = set()
        self.cut_before = self.cut_after = self.cut_in = self.cuts = self.ignored = 0
        self.repeats = 2
        self.day = 0
        self.clock: Callable[[], datetime] = lambda: datetime.now(UTC)
        self._next = defaultdict(lambda: 1)
        self._perm, self._execution = itertools.count(1_900_000_001), itertools.count(1)
        self._silent: list[BookFill] = []
        self._aliases: dict[str, str] = {}

    # Controls ---------------------------------------------------------------------------------------------------------

    def _do(self, what: Callable[[], Any]) -> Any:
        async def run() -> Any:
            return what()

        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(20)

    def quote(self, symbol: str, price: float) -> None:
        """A new price, at which orders that can be are filled."""
        self._do(lambda: self._tick(symbol, price))

    def fill(self, ref: str, quantity: float, price: float) -> None:
        """Fills so much of an order at a price."""
        self._do(lambda: self._fill(self.order(ref), quantity, price))

    def correct(self, ref: str, price: float, quantity: float | None = None) -> None:
        """Corrects the last execution of an order: it comes again with another revision."""

        def change() -> None:
            found = [one for one in self.fills if one.order.ref == ref][-1]
            amount = found.quantity if quantity is None else quantity
            side = found.order.side
            self.cash -= side * (amount * price - found.quantity * found.price)
            held, average = self.holdings.get(found.order.instrument.con_id, (0.0, 0.0))
            self.holdings[found.order.instrument.con_id] = (held + side * (amount - found.quantity), average)
            found.price, found.quantity, found.revision = price, amount, found.revision + 1
            for client in self._of(found.order.client):
                self._tell_fill(client, -1, found)
                self._tell_charge(client, found)

        self._do(change)

    def charge_all(self) -> None:
        """Tells the commissions that were held back."""

        def tell() -> None:
            for one in self._silent:
                for client in self._of(one.order.client):
                    self._tell_charge(client, one)
            self._silent.clear()

        self._do(tell)

    def cancel(self, ref: str, reason: str = "") -> None:
        """The broker cancels an order by itself."""
        self._do(lambda: self._cancel(self.order(ref), reason))

    def hold(self, ref: str, word: str) -> None:
        """An order becomes inactive for a reason that may pass."""

        def change() -> None:
            order = self.order(ref)
            order.held_for = word
            self._announce(order, "Inactive")

        self._do(change)

    def end(self, ref: str, status: str = "Inactive", code: int = 0, text: str = "") -> None:
        """An order ends with a status of its own."""

        def change() -> None:
            order = self.order(ref)
            order.status, order.ended_at, order.ended_day = status, self._stamp(), self.day
            if code:
                for client in self._of(order.client):
                    client.error(order.order_id, code, text)
            self._announce(order)

        self._do(change)

    def say(self, code: int, text: str, number: int = -1) -> None:
        """An error or notice to everybody."""
        self._do(lambda: [client.error(number, code, text) for client in self._clients()])

    def rename_accounts(self, *accounts: str) -> None:
        """The session's accounts are other ones from now on, and everybody is told so."""

        def change() -> None:
            self.accounts = list(accounts)
            for client in self._clients():
                client.send(15, 1, ",".join(accounts))

        self._do(change)

    def slip_in(self, where: str, account: str) -> None:
        """Messages of a kind (`value`, `holding`, `execution`, `order`) name another account from now on."""

        def change() -> None:
            self._aliases[where] = account
            if where == "execution":
                self._fill(next(one for one in self.orders if not one.ended), 1, 1.0)
            if where == "holding":
                self.holdings.setdefault(self.instruments[0].con_id, (1.0, 1.0))

        self._do(change)

    def disguise(self, ref: str, account: str) -> None:
        """An order belongs to another account."""
        self._do(lambda: self.order(ref).sent.update(account=account))

    def cut(self) -> None:
        """Cuts every line without a word."""
        self._do(lambda: [self._cut(client) for client in list(self._open)])

    @property
    def lines(self) -> int:
        """How many clients are connected."""
        return self._do(lambda: sum(not client.writer.is_closing() for client in self._clients()))

    def open_market(self) -> None:
        """Regular hours begin: what waited for them is tried."""

        def change() -> None:
            self.closed = False
            for order in list(self.orders):
                if not order.ended:
                    self._work(order)

        self._do(change)

    def close_market(self) -> None:
        """Regular hours end, and with them orders of the day."""

        def change() -> None:
            for order in list(self.orders):
                if not order.ended and order.sent["type"] == "MOC":
                    self._fill(order, order.quantity - order.filled, self.prices[order.instrument.symbol])
                elif not order.ended and order.sent["tif"] in ("DAY", "OPG") and order.status != "PendingSubmit":
                    self._cancel(order, "end of day")
            self.closed = True

        self._do(change)

    def next_day(self) -> None:
        """What has ended and been filled so far is not told any more."""
        self._do(lambda: setattr(self, "day", self.day + 1))

    def order(self, ref: str) -> BookOrder:
        """The newest order with a reference."""
        return [one for one in self.orders if one.ref == ref][-1]

    def refs(self) -> list[str]:
        """The references of all orders that were taken, in their order."""
        return [one.ref for one in self.orders]

    def held(self) -> dict[str, float]:
        """Shares held by symbol."""
        names = {one.con_id: one.symbol for one in self.instruments}
        return {names[number]: quantity for number, (quantity, _) in self.holdings.items() if quantity != 0}

    def place_foreign(self, ref: str, symbol: str, action: str, quantity: float, limit: float) -> None:
        """An order of another client: of a person at the screen."""

        def change() -> None:
            sent = dict.fromkeys((name.partition("<")[0] for name in _SENT), "")
            sent |= {
                "action": action, "quantity": _number(quantity), "type": "LMT", "limit": str(limit), "tif": "GTC",
                "account": self.accounts[0], "ref": ref, "outside_hours": "0", "parent": "0", "aux": "0",
            }  # fmt: skip
            found = next(one for one in self.instruments if one.symbol == symbol)
            order = BookOrder(0, 99, next(self._perm), found, sent)
            self.orders.append(order)
            self._work(order)

        self._do(change)

    # Messages ---------------------------------------------------------------------------------------------------------

    def _answers(self) -> dict[str, Callable[[Client, list[str]], None]]:
        own = {
            "3": self._place, "4": self._cancel_asked, "6": self._account, "7": self._executions, "16": self._opened,
            "5": self._opened, "99": self._ended, "61": self._positions,
        }  # fmt: skip
        answers = {**super()._answers(), **own}
        if self.lost:
            self.ignored += 1
            return {}
        return {kind: self._heard(kind, answer) for kind, answer in answers.items()}

    def _heard(self, kind: str, answer: Callable[[Client, list[str]], None]) -> Callable[[Client, list[str]], None]:
        def take(client: Client, fields: list[str]) -> None:
            self.received.append((client.number or 0, [kind, *fields]))
            due = self.cut_in == 1
            self.cut_in = max(0, self.cut_in - 1)
            if due or (kind == "3" and self.cut_before > 0):
                self.cut_before -= not due
                self._cut(client)
                return
            answer(client, fields)
            if kind == "3" and self.cut_after > 0:
                self.cut_after -= 1
                self._cut(client)

        return take

    def _cut(self, client: Client) -> None:
        if not client.writer.is_closing():
            self.cuts += 1
            # A reset: what is on its way to the client is lost.
            client.writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            client.writer.transport.abort()

    def _clients(self) -> list[Client]:
        return [] if self.frozen else [one for one in self._open if one.number is not None]

    def _of(self, number: int) -> list[Client]:
        return [one for one in self._clients() if one.number == number]

    def _next_id(self, client: Client) -> int:
        return self._next[client.number]

    def _welcome(self, client: Client) -> None:
        if not self.frozen:
            super()._welcome(client)

    def _details(self, client: Client, fields: list[str]) -> None:
        if not self.frozen:
            super()._details(client, fields)

    def _stamp(self) -> str:
        return f"{self.clock():%Y%m%d %H:%M:%S} UTC"

    def _worth(self) -> dict[str, float]:
        prices = {one.con_id: self.prices.get(one.symbol, 0.0) for one in self.instruments}
        value = sum(quantity * prices[number] for number, (quantity, _) in self.holdings.items())
        gross = sum(abs(quantity * prices[number]) for number, (quantity, _) in self.holdings.items())
        return {
            "NetLiquidation": self.cash + value, "TotalCashValue": self.cash, "GrossPositionValue": gross,
            "BuyingPower": max(0.0, self.margin * (self.cash + value) - gross),
        }  # fmt: skip

    def _account(self, client: Client, fields: list[str]) -> None:
        if not self.frozen and fields[1] == "1":
            for tag, value in self._worth().items():
                client.send(6, 2, tag, f"{value:.2f}", "USD", self._aliases.get("value", self.accounts[0]))
            client.send(6, 2, "AccountType", "INDIVIDUAL", "", self.accounts[0])
            client.send(54, 1, self.accounts[0])

    def _positions(self, client: Client, fields: list[str]) -> None:
        if self.frozen:
            return
        by_number = {one.con_id: one for one in self.instruments}
        for number, (quantity, average) in self.holdings.items():
            one, account = by_number[number], self._aliases.get("holding", self.accounts[0])
            client.send(
                61, 3, account, number, one.symbol, one.kind, "", "0", "", "", "", one.currency, one.symbol, "NMS",
                _number(quantity), repr(average),
            )  # fmt: skip
        client.send(62, 1)

    def _place(self, client: Client, fields: list[str]) -> None:
        order_id, rest = int(fields[0]), iter(fields[1:])
        wanted = {name: next(rest) for name in CONTRACT_FIELDS}
        sent: dict[str, str] = {}
        for one in _SENT:
            name, _, bound = one.partition("<")
            if not bound or client.version < int(bound):
                sent[name] = next(rest)
        found = [one for one in self.instruments if one.con_id == int(wanted["con_id"] or 0)] or self._matching(wanted)
        if self.read_only:
            client.error(order_id, 321, READ_ONLY)
        elif sent["account"] not in self.accounts:
            client.error(order_id, 321, f"Error validating request: Invalid account code '{sent['account']}'.")
        elif not found:
            client.error(order_id, 200, "No security definition has been found for the request")
        else:
            self._take(client, order_id, found[0], sent)

    def _take(self, client: Client, order_id: int, instrument: Instrument, sent: dict[str, str]) -> None:
        number = client.number or 0
        known = [one for one in self.orders if (one.client, one.order_id) == (number, order_id)]
        if instrument.symbol in self.untaken:
            self._tell(client, order_id, *self.untaken.pop(instrument.symbol))
            return
        for price in (float(sent["limit"] or 0), float(sent["aux"] or 0)):
            steps = price / instrument.tick
            if abs(steps - round(steps)) > 1e-6:
                text = "The price does not conform to the minimum price variation for this contract."
                self._tell(client, order_id, 110, text)
                return
        if known and known[-1].status == "Filled":
            self._tell(client, order_id, 104, "Cannot modify a filled order.")
            return
        if (known and known[-1].ended) or (not known and order_id < self._next[number]):
            self._tell(client, order_id, 103, "Duplicate order id")
            return
        if known:
            order = known[-1]
            order.sent = sent
        else:
            order = BookOrder(order_id, number, next(self._perm), instrument, sent)
            order.slices = self.slices.pop(instrument.symbol, [])
            self.orders.append(order)
            self._next[number] = order_id + 1
        refusal = self.refusals.pop(instrument.symbol, None)
        price = self.prices.get(instrument.symbol, 0.0)
        held = self.holdings.get(instrument.con_id, (0.0, 0.0))[0]
        opens = order.quantity - min(order.quantity, max(0.0, -order.side * held))
        if refusal is None and opens * price > self._worth()["BuyingPower"]:
            refusal = (201, "Order rejected - reason:YOUR ORDER IS NOT ACCEPTED. AVAILABLE FUNDS ARE INSUFFICIENT")
        if refusal is not None:
            order.status, order.ended_at, order.ended_day = "Inactive", self._stamp(), self.day
            self._tell(client, order_id, *refusal)
            self._announce(order)
            return
        notice = self.notices.pop(instrument.symbol, None)
        if notice is not None:
            self._tell(client, order_id, *notice)
        self._work(order)

    def _tell(self, client: Client, number: int, code: int, text: str) -> None:
        if not self.frozen:
            client.error(number, code, text)

    # The book ---------------------------------------------------------------------------------------------------------

    def _waits(self, order: BookOrder) -> bool:
        return self.closed and order.sent["outside_hours"] != "1"

    def _work(self, order: BookOrder) -> None:
        stop = order.sent["type"] in ("STP", "STP LMT", "TRAIL") and not order.triggered
        order.held_for = ""
        order.status = "PreSubmitted" if stop or self._waits(order) else "Submitted"
        self._announce(order)
        if self._waits(order):
            for client in self._of(order.client):
                text = (
                    "Order Message:\nWarning: your order will not be placed at the exchange until 09:30:00 US/Eastern"
                )
                client.error(order.order_id, 399, text)
        self._try(order)

    def _tick(self, symbol: str, price: float) -> None:
        self.prices[symbol] = price
        for order in list(self.orders):
            if order.instrument.symbol == symbol and not order.ended:
                self._try(order)

    def _try(self, order: BookOrder) -> None:
        price = self.prices.get(order.instrument.symbol)
        kind, side = order.sent["type"], order.side
        still = order.ended or order.held_for or not self.auto_fill or self._waits(order)
        if still or price is None or order.instrument.symbol in self.halted or kind == "MOC":
            return
        if kind in ("STP", "STP LMT", "TRAIL") and not order.triggered:
            if side * (price - self._stop_of(order, price)) < 0:
                return
            order.triggered = True
            order.status = "Submitted"
            self._announce(order)
        if kind in ("LMT", "STP LMT") and side * (float(order.sent["limit"]) - price) < 0:
            return
        quantity, at = order.slices.pop(0) if order.slices else (order.quantity - order.filled, None)
        self._fill(order, quantity, price if at is None else at)

    def _stop_of(self, order: BookOrder, price: float) -> float:
        if order.sent["type"] != "TRAIL":
            return float(order.sent["aux"])
        side, share = order.side, float(order.sent["trail_percent"]) / 100
        if order.best is None:
            first = order.sent["trail_stop"]
            order.best = float(first) / (1 + side * share) if first and float(first) < 1e300 else price
        stop = order.best * (1 + side * share)
        order.best = min(order.best, price) if side > 0 else max(order.best, price)
        return stop

    def _fill(self, order: BookOrder, quantity: float, price: float) -> None:
        quantity = min(float(quantity), order.quantity - order.filled)
        if quantity <= 0:
            return
        side, number = order.side, order.instrument.con_id
        order.average = (order.average * order.filled + price * quantity) / (order.filled + quantity)
        order.filled += quantity
        order.last = price
        order.status = "Filled" if order.filled >= order.quantity else "Submitted"
        order.ended_at, order.ended_day = self._stamp(), self.day
        held, average = self.holdings.get(number, (0.0, 0.0))
        now = held + side * quantity
        if held * side >= 0:
            average = (average * held + price * side * quantity) / now
        elif now * held <= 0:
            average = price if now else 0.0
        self.holdings[number] = (now, average)
        self.cash -= side * quantity * price + self.commission
        fill = BookFill(
            order, next(self._execution), quantity, price, self._stamp(), self.day, order.filled, order.average,
            self.commission,
        )  # fmt: skip
        self.fills.append(fill)
        for client in self._of(order.client):
            for _ in range(0 if self.stealthy else self.repeats):
                self._tell_fill(client, -1, fill)
        self._announce(order)
        if self.late_charges:
            self._silent.append(fill)
        elif not self.stealthy:
            for client in self._of(order.client):
                self._tell_charge(client, fill)
        group = order.sent["oca_group"]
        for other in [one for one in self.orders if group and one.sent["oca_group"] == group and not one.ended]:
            if order.status == "Filled":
                self._cancel(other, "")
            else:
                other.sent["quantity"] = _number(max(other.filled, other.quantity - quantity))
                self._announce(other)

    def _cancel(self, order: BookOrder, reason: str) -> None:
        order.status, order.ended_at, order.ended_day = "Cancelled", self._stamp(), self.day
        for client in self._of(order.client):
            client.error(order.order_id, 202, f"Order Canceled - reason:{reason}")
        self._announce(order)

    def _cancel_asked(self, client: Client, fields: list[str]) -> None:
        number = int(fields[1])
        known = [one for one in self.orders if (one.client, one.order_id) == (client.number, number)]
        if not known:
            self._tell(client, number, 10147, f"OrderId {number} that needs to be cancelled is not found.")
        elif known[-1].ended:
            text = f"OrderId {number} that needs to be cancelled cannot be cancelled, state: {known[-1].status}."
            self._tell(client, number, 10148, text)
        else:
            self._cancel(known[-1], "")

    # What is told -----------------------------------------------------------------------------------------------------

    def _values(self, order: BookOrder) -> dict[str, Any]:
        one = order.instrument
        sent = {name: order.sent[name] for name in _TOLD.replace("open_close= origin=0 ", "").split()}
        sent["account"] = self._aliases.get("order", sent["account"])
        return {
            **sent, "con_id": one.con_id, "symbol": one.symbol, "kind": one.kind, "currency": one.currency,
            "local_symbol": one.symbol, "order_id": order.order_id, "client": order.client, "perm": order.perm,
            "outside_hours": order.sent["outside_hours"], "parent": order.sent["parent"], "status": order.status,
            "filled": _number(order.filled), "ended_at": order.ended_at, "ended_status": order.status,
            "limit": order.sent["limit"] or "0.0", "aux": order.sent["aux"] or "0.0",
        }  # fmt: skip

    def _announce(self, order: BookOrder, status: str | None = None) -> None:
        for client in self._of(order.client):
            for _ in range(self.repeats):
                self._tell_order(client, order, status)

    def _tell_order(self, client: Client, order: BookOrder, status: str | None = None) -> None:
        values = {**self._values(order), "status": status or order.status}
        client.send(5, *_laid_out(_TOLD_OPEN, values, client.version))
        client.send(
            3, order.order_id, status or order.status, _number(order.filled), _number(order.quantity - order.filled),
            order.average, order.perm, order.sent["parent"] or 0, order.last, order.client, order.held_for, 0.0,
        )  # fmt: skip

    def _tell_fill(self, client: Client, request: object, fill: BookFill) -> None:
        order, one = fill.order, fill.order.instrument
        account = self._aliases.get("execution", order.sent["account"])
        client.send(
            11, request, order.order_id, one.con_id, one.symbol, one.kind, "", "0", "", "", one.listed, one.currency,
            one.symbol, "NMS", fill.id, fill.time, account, one.listed, "BOT" if order.side > 0 else "SLD",
            _number(fill.quantity), fill.price, order.perm, order.client, 0, _number(fill.cumulative), fill.average,
            order.ref, "", "", "", 2, *([0] if client.version >= 178 else []),
        )  # fmt: skip

    def _tell_charge(self, client: Client, fill: BookFill) -> None:
        client.send(59, 1, fill.id, fill.commission, "USD", _HUGE, _HUGE, "")

    def _opened(self, client: Client, fields: list[str]) -> None:
        if self.frozen:
            return
        for order in self.orders:
            if not order.ended:
                self._tell_order(client, order)
        client.send(53, 1)

    def _ended(self, client: Client, fields: list[str]) -> None:
        if self.frozen:
            return
        for order in self.orders:
            if order.ended and order.ended_day == self.day:
                client.send(101, *_laid_out(_TOLD_ENDED, self._values(order), client.version))
        client.send(102)

    def _executions(self, client: Client, fields: list[str]) -> None:
        if self.frozen:
            return
        for fill in self.fills:
            if fill.day == self.day:
                self._tell_fill(client, fields[1], fill)
                if fill.order.client == client.number and fill not in self._silent:
                    self._tell_charge(client, fill)
        client.send(55, 1, fields[1])
