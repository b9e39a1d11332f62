"""What a broker is to the rest of the house: orders go in, reports and a picture of its book come out.

A broker knows nothing of strategies. Each order has a reference of ours, the client order id, under which the broker
keeps it; by that reference it is found again after a break. Reports come in the order in which the broker sent them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

# What is known of an order: sent and not confirmed; confirmed; waiting for shares to borrow; and its four ends.
Status = Literal["pending", "working", "held", "filled", "cancelled", "rejected"]


class BrokerError(Exception):
    """The broker can't be asked now; the message says why and what helps. `retryable`: it may pass by itself."""

    def __init__(self, message: str, *, retryable: bool):
        super().__init__(message)
        self.retryable = retryable


class LiveAccount(BrokerError):
    """Money could be at stake: an account that is not a paper account, or settings that allow one. Nothing is sent."""

    def __init__(self, message: str):
        super().__init__(message, retryable=False)


class RefusedInstrument(Exception):
    """A symbol that can't be traded; the message says why and what would be right."""


@dataclass(frozen=True)
class Traded:
    """What is to be traded: a symbol of the universe, its calendar, and the broker's name of it where it needs one."""

    symbol: str
    calendar: str
    name: str | None = None


@dataclass(frozen=True)
class Listing:
    """What the broker makes of a symbol: its number of the contract, and what orders must keep to.

    tick: the smallest step of a price. fractions: whether parts of a share can be traded through its API.
    """

    traded: Traded
    number: int
    currency: str
    tick: float
    fractions: bool = False


@dataclass(frozen=True)
class Ticket:
    """An order as it is sent. Prices are on the grid of ticks; words are the engine's (`codes.ORDER_TYPES`, `FORCES`).

    side: 1 buys, -1 sells. trail: the distance of a trailing stop, a fraction. group: orders of one group cancel each
    other when one fills; empty for none.
    """

    order_ref: str
    listing: Listing
    side: int
    quantity: float
    type: str
    time_in_force: str
    limit: float | None = None
    stop: float | None = None
    trail: float | None = None
    group: str = ""


@dataclass(frozen=True)
class OrderReport:
    """How an order stands at the broker. order_id: the broker's number within a client id, permanent_id for good.

    held_for: why it waits, in the broker's word. text: why it ended. known_to: the client id it was sent with. limit,
    stop: its prices, None where it has none or they move by themselves.
    """

    order_ref: str
    status: Status
    filled: float = 0.0
    quantity: float = 0.0
    average: float = 0.0
    order_id: int = 0
    permanent_id: int = 0
    known_to: int = -1
    held_for: str = ""
    text: str = ""
    account: str = ""
    symbol: str = ""
    side: int = 0
    limit: float | None = None
    stop: float | None = None


@dataclass(frozen=True)
class Refusal:
    """The broker refused an order, or a change of it, with a code of its own; which of the two the ledger knows."""

    order_ref: str
    code: int
    text: str


@dataclass(frozen=True)
class Unplaced:
    """The broker did not take an order for a reason that is not the order's: whether it is there must be found out."""

    order_ref: str
    text: str


@dataclass(frozen=True)
class Fill:
    """An execution. `execution_id` ends with a revision after its last dot; a correction has another one."""

    execution_id: str
    order_ref: str
    account: str
    symbol: str
    number: int
    side: int
    quantity: float
    price: float
    time: datetime
    permanent_id: int = 0
    order_id: int = 0

    @property
    def base(self) -> str:
        """What stays the same of the id when the execution is corrected."""
        return self.execution_id.rpartition(".")[0] or self.execution_id


@dataclass(frozen=True)
class Charge:
    """The commission of an execution, which may come later than the execution."""

    execution_id: str
    commission: float
    currency: str


@dataclass(frozen=True)
class Link:
    """The broker's own connection to its exchange side, or ours to it: `lost`, `back` or `closed`."""

    state: Literal["lost", "back", "closed"]
    text: str = ""


@dataclass(frozen=True)
class Notice:
    """Something that the broker says and that changes nothing."""

    code: int
    text: str
    order_ref: str = ""


Report = OrderReport | Refusal | Unplaced | Fill | Charge | Link | Notice


@dataclass(frozen=True)
class Holding:
    """A position at the broker, of a contract by its number."""

    account: str
    symbol: str
    number: int
    quantity: float
    average: float
    currency: str = ""


@dataclass(frozen=True)
class Values:
    """What the account is worth, in its base currency; None where the broker did not say."""

    account: str
    currency: str = ""
    equity: float | None = None
    cash: float | None = None
    buying_power: float | None = None
    gross: float | None = None


@dataclass(frozen=True)
class Book:
    """The broker's book at one moment: working orders of all clients, ended ones, executions, positions, values.

    Ended orders and executions are those of the broker's day. Each list was asked for after the one before it, so that
    an order that moves on meanwhile is in a later one.
    """

    open: Sequence[OrderReport] = ()
    ended: Sequence[OrderReport] = ()
    fills: Sequence[Fill] = ()
    charges: Sequence[Charge] = ()
    holdings: Sequence[Holding] = ()
    values: Values = field(default_factory=lambda: Values(""))


class Broker(Protocol):
    """One connection to one account. Every call may raise `BrokerError`; of a closed connection all do."""

    name: str
    account: str
    client_id: int

    def connect(self) -> None:
        """Connect and make sure that the account is the one of the settings; raises `LiveAccount` where it may not."""

    def close(self) -> None:
        """End the connection; nothing is cancelled."""

    @property
    def connected(self) -> bool:
        """Whether orders can be sent: connected, and the broker connected to its exchange side."""

    def listings(self, wanted: Sequence[Traded]) -> dict[Traded, Listing | RefusedInstrument]:
        """What the broker makes of symbols, or why it can't trade one."""

    def place(self, tickets: Sequence[Ticket]) -> None:
        """Send orders, each after a look at the accounts. What becomes of them is reported."""

    def replace(self, ticket: Ticket) -> None:
        """Send an order again that works, with another quantity or other prices."""

    def cancel(self, order_refs: Sequence[str]) -> None:
        """Ask to cancel orders; one that this connection can't name is reported as a notice."""

    def book(self) -> Book:
        """The broker's book as of now."""

    def reports(self, seconds: float) -> list[Report]:
        """What was reported since the last call; waits so long for the first."""
