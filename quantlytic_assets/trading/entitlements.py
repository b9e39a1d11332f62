"""What a holder is entitled to: more shares after a split, cash on the ex-date of a dividend, the share's new name.

Orders, fills and prices are under the ticker, in the shares and the money of their own day. Sums over days are made by
company, in units that no split changes: shares held / split factor of that day, the number of shares that one of the
company's first shares has become (`market_data.actions.split_factors`). Fractions that a split leaves are kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

import polars as pl

from quantlytic_assets.market_data.actions.listings import with_last_step

# Steps in time: from `since` on a symbol means `company`, one of whose first shares has become `split_factor` shares. A
# symbol without steps is a company of its own, without splits.
STEPS_SCHEMA = pl.Schema({"symbol": pl.String, "since": pl.Date, "company": pl.String, "split_factor": pl.Float64})
DIVIDENDS_SCHEMA = pl.Schema({"symbol": pl.String, "session": pl.Date, "value": pl.Float64})
# How near, in logs, the move of a fill's bar must be to a split's ratio to be that split: vendors correct prices too.
_SAME_RATIO = 0.05
# Shares are rounded to this many decimals, or a split by three there and back would leave a trace.
_DECIMALS = 9


@dataclass(frozen=True)
class Entitlements:
    """Splits, renames and dividends of the symbols traded; without any, nothing grows and nothing is paid.

    steps: STEPS_SCHEMA. dividends: DIVIDENDS_SCHEMA, `session` the ex-date, `value` cash on a share as it stands on
    that day.
    """

    steps: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=STEPS_SCHEMA))
    dividends: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=DIVIDENDS_SCHEMA))

    def with_company(self, frame: pl.DataFrame, day: str) -> pl.DataFrame:
        """`frame` (symbol, `day`) with a column `company`: whose share the symbol was on that day."""
        if self.steps.is_empty():
            # So it is with most datasets, and bars are many.
            return frame.with_columns(pl.col("symbol").alias("company"))
        asked = frame.select("symbol", pl.col(day).alias("day"))
        found = with_last_step(asked, self.steps, "symbol", "day", "since")
        return frame.with_columns(pl.coalesce(found["company"], frame["symbol"]).alias("company"))

    def with_split_factor(self, frame: pl.DataFrame, day: str, name: str = "split_factor") -> pl.DataFrame:
        """`frame` (company, `day`) with a column `name`: the split factor of the company on that day."""
        asked = frame.select("company", pl.col(day).alias("day"))
        found = with_last_step(asked, self._split_factors, "company", "day", "since")
        return frame.with_columns(found["split_factor"].fill_null(1.0).alias(name))

    def by_company(self, frame: pl.DataFrame, day: str) -> pl.DataFrame:
        """`frame` (symbol, `day`) with columns `company` and `split_factor`, both of that day."""
        return self.with_split_factor(self.with_company(frame, day), day)

    @property
    def _split_factors(self) -> pl.DataFrame:
        """company, since, split_factor: a company's steps, whatever it was traded under."""
        return self.steps.select("company", "since", "split_factor").unique()

    def digests(self, sessions: Sequence[date] | pl.Series) -> list[str]:
        """For each session (ascending) a digest of what its account rests on.

        That is all splits and renames, for one that comes later tells in which shares earlier prices are, and the
        dividends up to the session.
        """
        counted = hashlib.sha256(self.steps.sort(self.steps.columns).write_csv().encode())
        paid = self.dividends.sort("session", "symbol", "value").rows()
        found, at = [], 0
        place = self.dividends.columns.index("session")
        for session in sessions:
            while at < len(paid) and paid[at][place] <= session:
                counted.update(repr(paid[at]).encode())
                at += 1
            found.append(counted.hexdigest())
        return found

    def with_symbol(self, frame: pl.DataFrame, day: str) -> pl.DataFrame:
        """`frame` (company, `day`) with a column `symbol`: what the company is traded under on that day.

        One that has no ticker any more is called by its last one and the day that took it: `X@2012-01-03`.
        """
        stretches = (
            self.steps.sort("symbol", "since")
            .filter((pl.col("company") != pl.col("company").shift(1)).fill_null(True).over("symbol", order_by="since"))
            .with_columns(pl.col("since").shift(-1).over("symbol", order_by="since").alias("until"))
        )
        asked = frame.select("company", pl.col(day).alias("day"))
        found = with_last_step(asked, stretches.drop("split_factor"), "company", "day", "since")
        gone = pl.concat_str("symbol", pl.lit("@"), pl.col("until").dt.to_string("%Y-%m-%d"))
        called = found.select(pl.when(pl.col("until") <= pl.col("day")).then(gone).otherwise("symbol").alias("called"))[
            "called"
        ]
        return frame.with_columns(pl.coalesce(called, frame["company"]).alias("symbol"))

    def income(self, held: pl.DataFrame, sessions: Sequence[date] | pl.Series) -> pl.DataFrame:
        """Cash from dividends: session (the ex-date), income.

        held: portfolio.POSITIONS_SCHEMA of all `sessions`. Who holds a share at the end of the session before the
        ex-date is paid, on the ex-date, before taxes; the shares are counted as they stand then.
        """
        evenings = pl.DataFrame({"evening": pl.Series(sessions, dtype=pl.Date).unique().sort()})
        holdings = self.with_company(held, "session").select("company", pl.col("session").alias("evening"), "quantity")
        due = (
            self.with_company(self.dividends, "session")
            .with_columns((pl.col("session") - pl.duration(days=1)).alias("eve"))
            .sort("eve")
            .join_asof(evenings, left_on="eve", right_on="evening")
            .join(holdings, on=["company", "evening"])
        )
        due = self.with_split_factor(self.with_split_factor(due, "evening", "before"), "session", "after")
        paid = pl.col("quantity") * pl.col("after") / pl.col("before") * pl.col("value")
        return due.group_by("session").agg(paid.sum().alias("income")).sort("session")

    def in_later_shares(self, fills: pl.DataFrame, bars: pl.DataFrame) -> pl.DataFrame:
        """Those of `fills` (orders.FILLS_SCHEMA) whose shares are not of their session but of after a later split.

        So are the fills of a simulation whose vendor had put the split into its prices before anybody here knew of it:
        once it is known, their bars (symbol, open_time, open as traded) are apart from them by its ratio, and to let
        them grow would count it twice.
        """
        against = pl.when(pl.col("side") == "buy").then(1.0).otherwise(-1.0)
        made_from = pl.col("price") - against * pl.col("slippage") / pl.col("quantity")
        opens = bars.select("symbol", pl.col("open_time").alias("fill_time"), "open")
        matched = self.by_company(fills.join(opens, on=["symbol", "fill_time"]), "fill_session")
        ratio = (pl.col("later") / pl.col("split_factor")).log()
        found = (
            matched.join(self._split_factors.rename({"split_factor": "later"}), on="company")
            .filter(pl.col("since") > pl.col("fill_session"))
            .filter(
                ((pl.col("open") / made_from).log() - ratio).abs()
                < pl.min_horizontal(pl.lit(_SAME_RATIO), ratio.abs() / 4)
            )
        )
        return fills.join(found, on="order_ref", how="semi", maintain_order="left")


def shares(units: pl.Expr, split_factor: pl.Expr) -> pl.Expr:
    """Shares that units amount to at a split factor."""
    return (units * split_factor).round(_DECIMALS)
