"""Halting the account of a strategy by hand, and letting it go on.

A request is on record at once, also where nothing was traded yet. It takes effect with the first bar that the account
has not traded and that comes after the request: at the bar's open where it opens then or later, else, where the bar was
under way, with the decision on it. Bars before that are traded as if nobody had asked, whenever that happens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from quantlytic_assets.trading.engine import codes as c
from quantlytic_assets.trading.engine.requests import Requests

if TYPE_CHECKING:
    from quantlytic_assets.storage.accounts import Accounts, Request, StoredAccount
    from quantlytic_assets.trading.engine.market import Market

BY_HAND = "by_hand"
# Why an account is halted, in the engine's word → in words.
_REASONS = {
    "max_daily_loss": "for a loss of the day beyond risk.max_daily_loss, until the next session",
    "max_drawdown": "for a drawdown beyond risk.max_drawdown",
    "var_95": "for a value at risk beyond risk.var_95",
    "ruined": "for its equity is used up",
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class HaltError(ValueError):
    """A request makes no sense as the account stands; the message says how it stands."""


@dataclass(frozen=True)
class Standing:
    """How an account stands, with what was asked of it last.

    halted: why, in the engine's word (`by_hand` where a person asked), None where it trades. since: when it was halted,
    UTC. request: what a person asked and this follows from. account: what is on record, None before the first bar.
    """

    strategy: str
    halted: str | None = None
    since: datetime | None = None
    request: Request | None = None
    account: StoredAccount | None = None

    @property
    def waits(self) -> bool:
        """Whether the request takes effect with the next bar only."""
        return self.request is not None and self.request.effective_at is None

    @property
    def said(self) -> str:
        """The state in words: `halted by anna at 2025-01-31 15:20 UTC: earnings; takes effect with the next bar`."""
        later = "; takes effect with the next bar" if self.waits else ""
        if self.halted is None:
            first = "trading" if self.account or self.waits else "has not traded yet"
            return first if self.request is None else f"trading again, as {_asked(self.request)}{later}"
        if self.request is not None:
            return f"halted, as {_asked(self.request)}{later}"
        return f"halted since {_minute(self.since)} {_REASONS.get(self.halted, self.halted)}"


def ask_to_halt(
    accounts: Accounts, strategy: str, by: str, reason: str | None = None, liquidate: bool | None = None
) -> Standing:
    """Ask that a strategy's account opens no position from now on; returns how it stands then.

    by: who asks. liquidate: whether what is held is closed; None leaves that to the strategy's `risk.liquidate`. An
    account that is halted already stays so, with this request as its reason.
    """
    accounts.request(strategy, "halt", by, reason, liquidate)
    return standings(accounts, [strategy])[strategy]


def ask_to_resume(accounts: Accounts, strategy: str, by: str, reason: str | None = None) -> Standing:
    """Ask that a halted account goes on, whatever it was halted for; returns how it stands then.

    Raises `HaltError` where it is not halted.
    """
    before = standings(accounts, [strategy])[strategy]
    if before.halted is None:
        raise HaltError(f"{strategy} is not halted, so there is nothing to resume; it is {before.said}")
    accounts.request(strategy, "resume", by, reason)
    return standings(accounts, [strategy])[strategy]


def standings(accounts: Accounts, strategies: Iterable[str]) -> dict[str, Standing]:
    """How the accounts of these strategies stand."""
    stored = accounts.every()
    asked: dict[str, list[Request]] = {}
    for request in accounts.requests():
        asked.setdefault(request.strategy, []).append(request)
    return {name: _standing(name, stored.get(name), asked.get(name, ())) for name in strategies}


def _standing(strategy: str, account: StoredAccount | None, requests: Sequence[Request]) -> Standing:
    taken = [one for one in requests if one.effective_at is not None and one.action == "halt"]
    found = Standing(strategy, account=account)
    if account and account.halted:
        request = taken[-1] if account.halted == BY_HAND and taken else None
        found = replace(found, halted=account.halted, since=account.halted_since, request=request)
    for one in requests:
        if one.effective_at is None and one.action == "halt":
            found = replace(found, halted=BY_HAND, since=one.requested_at, request=one)
        elif one.effective_at is None and found.halted:
            found = replace(found, halted=None, since=None, request=one)
    return found


def who_halted(accounts: Accounts, strategy: str, time: datetime) -> str | None:
    """Who asked for the halt of a time (UTC), when and why, in words; None where a limit halted the account."""
    mine = [one for one in accounts.requests(strategy) if one.action == "halt" and one.effective_at == time]
    return _asked(mine[-1]) if mine else None


def due(pending: Sequence[Request], market: Market, fresh: slice) -> tuple[dict[int, Requests], dict[int, datetime]]:
    """What is asked of the engine at which time of the market, and when (UTC) each request takes effect, by its number.

    fresh: the times that are to be traded now. Requests are taken in their order; one that no bar comes after waits.
    """
    asked: dict[int, Requests] = {}
    taken: dict[int, datetime] = {}
    opens, available = market.times[fresh, c.OPENS], market.times[fresh, c.AVAILABLE]
    # A request never takes effect before one that was made earlier, whatever the clocks of their machines say.
    earliest = (0, c.BARS)
    for one in pending:
        when = (one.requested_at - _EPOCH) // timedelta(microseconds=1)
        after = np.flatnonzero(available >= when)
        if not len(after):
            break
        at = int(after[0])
        at, half = earliest = max(earliest, (at, c.BARS if opens[at] >= when else c.DECIDE))
        requests = asked.setdefault(fresh.start + at, Requests(market.symbols))
        if one.action == "halt":
            requests.halt(one.liquidate, at_open=half == c.BARS)
        else:
            requests.resume(at_open=half == c.BARS)
        taken[one.id] = _EPOCH + timedelta(microseconds=int((opens if half == c.BARS else available)[at]))
    return asked, taken


def _asked(request: Request) -> str:
    why = f": {request.reason}" if request.reason else ""
    return f"{request.requested_by} asked at {_minute(request.requested_at)}{why}"


def _minute(time: datetime | None) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC" if time else "an unknown time"
