"""What the numbers mean that TWS sends with its messages, as far as orders and connections are concerned."""

from __future__ import annotations

from typing import Literal

from quantlytic_assets.brokers.protocol import Status

# What a message is to an order: nothing, the end, a refusal, a failed cancellation, or that the id was the mistake.
Meaning = Literal["notice", "cancelled", "refused", "unchanged", "unplaced"]

# Said of a time in force that TWS set, of an order held until the market opens, of shares that are located, and so on.
_NOTICES = {165, 366, 399, 404, 10167, 10349}
_CANCELLED = {202}
# Cancellations and changes that came too late; the order is as it was.
_UNCHANGED = {104, 161, 10147, 10148, 10149}
# Too many messages in a second; an order id that was used before.
_UNPLACED = {100, 103}
LINK_LOST = {1100, 2110}
LINK_BACK = {1101, 1102}
# Said of the connection itself while it is made: another program has the client id, or TWS has no place for us.
CONNECT_REFUSED = {326, 501, 502, 503, 504, 507, 1300}

_STATUSES: dict[str, Status] = {
    "ApiPending": "pending",
    "PendingSubmit": "pending",
    "PreSubmitted": "working",
    "Submitted": "working",
    "PendingCancel": "working",
    "Filled": "filled",
    "Cancelled": "cancelled",
    "ApiCancelled": "cancelled",
}


def meaning(code: int) -> Meaning:
    """What a message with this code and an order's id says of the order."""
    if code in _NOTICES or 2100 <= code < 2200:
        return "notice"
    if code in _CANCELLED:
        return "cancelled"
    if code in _UNCHANGED:
        return "unchanged"
    return "unplaced" if code in _UNPLACED else "refused"


def status(word: str, held_for: str = "") -> Status:
    """TWS's word for how an order stands. `Inactive` is the end, but for an order that waits for something named."""
    if word == "Inactive":
        return "held" if held_for else "rejected"
    return _STATUSES.get(word, "pending")
