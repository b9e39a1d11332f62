"""The paper guard: nothing is sent to an account that could be a live one. It can't be switched off.

IB's paper accounts begin with `D`: `DU1234567`, or `DF…` and `DI…` where an adviser sees several. Each account that a
connection manages must, the account that is traded must be a `DU…` of the allow-list, and the ports that TWS (7496) and
Gateway (4001) give live sessions by default are refused. The port alone proves nothing, and neither does a name; so all
of it is checked when a connection is made and once more before every order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from quantlytic_assets.brokers.protocol import LiveAccount

LIVE_PORTS = {7496: "TWS", 4001: "IB Gateway"}
_PAPER = re.compile(r"DU[0-9]+")


class PaperGuard:
    """What must be true of settings and accounts before an order; what was seen once stays seen.

    account: the one that is traded. allowed: the accounts that may be. Raises `LiveAccount` for settings that could
    lead to a live account.
    """

    def __init__(self, account: str | None, allowed: Sequence[str], port: int):
        if port in LIVE_PORTS:
            raise LiveAccount(
                f"port {port} is where {LIVE_PORTS[port]} has its live session; start a paper session and set "
                "QUANTLYTIC_IBKR_PAPER_PORT to its port (Gateway 4002, TWS 7497)"
            )
        if not account:
            raise LiveAccount(
                "no account is named: set QUANTLYTIC_IBKR_ACCOUNT to the paper account, such as DU1234567"
            )
        if not _PAPER.fullmatch(account):
            raise LiveAccount(f"QUANTLYTIC_IBKR_ACCOUNT={account} is no paper account: those are DU and digits")
        if account not in allowed:
            raise LiveAccount(
                f"account {account} is not on the allow-list: add it to QUANTLYTIC_IBKR_ALLOWED_ACCOUNTS, after a look "
                "at the account's number in TWS"
            )
        self.account = account
        self._live: str | None = None

    def saw(self, accounts: Iterable[str]) -> None:
        """Notes accounts that a message named; one that is not a paper account closes the guard for good."""
        for one in accounts:
            if one and not one.startswith("D"):
                self._live = one

    def check(self, managed: Sequence[str], account: str) -> None:
        """Raises `LiveAccount` unless an order for `account` may go out over a connection of these accounts."""
        self.saw(managed)
        if self._live is not None:
            raise LiveAccount(
                f"account {self._live} of this connection is no paper account (those begin with D): nothing is sent. "
                "Log in to a paper session, then start again"
            )
        if account != self.account:
            raise LiveAccount(f"an order is for account {account}, and the settings allow {self.account} alone")
        if self.account not in managed:
            raise LiveAccount(
                f"account {self.account} is not managed by this connection (it has {', '.join(managed) or 'none'}): "
                "nothing is sent. Set QUANTLYTIC_IBKR_ACCOUNT to the account of the session"
            )
