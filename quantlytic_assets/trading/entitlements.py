"""What a holder is entitled to: more shares after a split, cash on the ex-date of a dividend.

Orders, fills and prices are in shares and money of their own day. Sums over days are made in units that no split
changes: shares held / growth of that day, growth being what one share held from the beginning has become
(`market_data.share_counts.holdings_growth`). Fractions that a split leaves are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

import polars as pl

from quantlytic_assets.market_data.share_counts import growth_on

GROWTH_SCHEMA = pl.Schema({"symbol": pl.String, "since": pl.Date, "growth": pl.Float64})
DIVIDENDS_SCHEMA = pl.Schema({"symbol": pl.String, "session": pl.Date, "value": pl.Float64})
# How near, in logs, the move of a fill's bar must be to a split's ratio to be that split: vendors correct prices too.
_SAME_RATIO = 0.05
# Shares are rounded to this many decimals, or a split by three there and back would leave a trace.
_DECIMALS = 9


@dataclass(frozen=True)
class Entitlements:
    """Splits and dividends of the symbols traded; without any, nothing grows and nothing is paid.

    growth: GROWTH_SCHEMA, steps by symbol and since. dividends: DIVIDENDS_SCHEMA, `session` the ex-date, `value` cash
    on a share as it stands on that day.
    """

    growth: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=GROWTH_SCHEMA))
    dividends: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=DIVIDENDS_SCHEMA))

    def with_growth(self, frame: pl.DataFrame, day: str, name: str = "growth") -> pl.DataFrame:
        """`frame` (symbol, `day`) with a column `name`: growth of the symbol on that day."""
        return frame.with_columns(growth_on(frame, self.growth, day).alias(name))

    def income(self, held: pl.DataFrame, sessions: Sequence[date] | pl.Series) -> pl.DataFrame:
        """Cash from dividends: session (the ex-date), income.

        held: portfolio.POSITIONS_SCHEMA of all `sessions`. Who holds a share at the end of the session before the
        ex-date is paid, on the ex-date, before taxes; the shares are counted as they stand then.
        """
        evenings = pl.DataFrame({"evening": pl.Series(sessions, dtype=pl.Date).unique().sort()})
        due = (
            self.dividends.with_columns((pl.col("session") - pl.duration(days=1)).alias("eve"))
            .sort("eve")
            .join_asof(evenings, left_on="eve", right_on="evening")
            .join(held.select("symbol", pl.col("session").alias("evening"), "quantity"), on=["symbol", "evening"])
        )
        due = self.with_growth(self.with_growth(due, "evening", "before"), "session", "after")
        paid = pl.col("quantity") * pl.col("after") / pl.col("before") * pl.col("value")
        return due.group_by("session").agg(paid.sum().alias("income")).sort("session")

    def in_later_shares(self, fills: pl.DataFrame, bars: pl.DataFrame) -> pl.DataFrame:
        """Those of `fills` (ledger.FILLS_SCHEMA) whose shares are not of their session but of after a later split.

        So are the fills of a simulation whose vendor had put the split into its prices before anybody here knew of it:
        once it is known, their bars (symbol, open_time, open as traded) are apart from them by its ratio, and to let
        them grow would count it twice.
        """
        against = pl.when(pl.col("side") == "buy").then(1.0).otherwise(-1.0)
        made_from = pl.col("price") - against * pl.col("slippage") / pl.col("quantity")
        opens = bars.select("symbol", pl.col("open_time").alias("fill_time"), "open")
        matched = self.with_growth(fills.join(opens, on=["symbol", "fill_time"]), "fill_session")
        ratio = (pl.col("later") / pl.col("growth")).log()
        found = (
            matched.join(self.growth.select("symbol", "since", pl.col("growth").alias("later")), on="symbol")
            .filter(pl.col("since") > pl.col("fill_session"))
            .filter(
                ((pl.col("open") / made_from).log() - ratio).abs()
                < pl.min_horizontal(pl.lit(_SAME_RATIO), ratio.abs() / 4)
            )
        )
        return fills.join(found, on="order_ref", how="semi", maintain_order="left")


def shares(units: pl.Expr, growth: pl.Expr) -> pl.Expr:
    """Shares that units amount to at a growth."""
    return (units * growth).round(_DECIMALS)
