"""What an order and a fill look like, what an order is called, and what trading asks of the ledger that keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Protocol

import polars as pl

from quantlytic_assets.schemas.trading import FILLS, ORDERS

ORDERS_SCHEMA = ORDERS.polars
FILLS_SCHEMA = FILLS.polars


def order_ref(strategy: str = "strategy", session: str = "session", symbol: str = "symbol") -> pl.Expr:
    """The name of an order, made of the columns that identify it: `momentum_1d:2015-03-02:AAPL`."""
    return pl.concat_str(pl.col(strategy), pl.col(session).dt.to_string("%Y-%m-%d"), pl.col(symbol), separator=":")


class OrderLedger(Protocol):
    """The durable record of decisions, orders and fills; see `storage.ledger.Ledger` for what each method promises."""

    def decided_sessions(self, strategy: str) -> pl.Series:
        """The sessions, oldest first, for which decisions are on record."""

    def record_decisions(self, strategy: str, sessions: Sequence[date], orders: pl.DataFrame) -> bool:
        """Write the decisions of whole sessions, all or none; False where another process was quicker."""

    def record_fills(self, fills: pl.DataFrame) -> None:
        """Write fills (FILLS_SCHEMA) and mark their orders filled."""

    def orders(self, strategy: str, first: date | None = None, last: date | None = None) -> pl.DataFrame:
        """Orders (ORDERS_SCHEMA) of the sessions from `first` to `last`, both inclusive."""

    def open_orders(self, strategy: str) -> pl.DataFrame:
        """Orders (ORDERS_SCHEMA) that wait for a fill."""

    def committed_before(self, strategy: str, session: date, splits: Sequence[date] | pl.Series = ()) -> pl.DataFrame:
        """What the orders of earlier sessions add up to once all are filled (`schemas.trading.CHANGES_SCHEMA`)."""
