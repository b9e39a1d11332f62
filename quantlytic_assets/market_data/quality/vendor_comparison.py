"""The same bar from two sources: how far apart their prices are, in shares as they were traded.

Which of the two becomes the bar is decided in `cleaning`; who is compared with whom, in the universe and its checks.
"""

from __future__ import annotations

import polars as pl

from quantlytic_assets.market_data.actions.adjustment import basis, factor_at, split_steps
from quantlytic_assets.market_data.actions.reconcile import IMPORT
from quantlytic_assets.schemas.clean import VENDOR_DIFFERENCES
from quantlytic_assets.schemas.vocabulary import COMPARED_FIELDS

DEFAULT_TOLERANCE_BPS = 10.0

DIFFERENCES_SCHEMA = VENDOR_DIFFERENCES.polars

_KEY = ["symbol", "session", "open_time"]


def as_traded(bars: pl.DataFrame, splits: pl.DataFrame) -> pl.DataFrame:
    """`bars` with their COMPARED_FIELDS in shares of their own session.

    `bars`: symbol, session, fetched_at, adjustment, COMPARED_FIELDS, …; `splits`: symbol, session (ex-date), value.
    """
    steps = split_steps(
        splits.select(pl.col("symbol").alias("instrument"), "session", "value", pl.lit(True).alias("known"))
    )
    if steps.is_empty():
        return bars
    placed = bars.select(pl.col("symbol").alias("instrument"), "session", basis().alias("basis"))
    factor = factor_at(placed, steps, "basis", "shares") / factor_at(placed, steps, "session", "shares")
    return bars.with_columns(pl.col(name) * factor for name in COMPARED_FIELDS)


def differences(bars: pl.DataFrame, others: pl.DataFrame, tolerance_bps: float, dataset: str) -> pl.DataFrame:
    """DIFFERENCES_SCHEMA: one row a field in which a bar of `others` is further from that of `bars` than the tolerance.

    Both have _KEY, vendor and COMPARED_FIELDS `as_traded`; only bars that both have are compared.
    """
    both = bars.select(*_KEY, "vendor", *COMPARED_FIELDS).join(
        others.select(*_KEY, pl.col("vendor", *COMPARED_FIELDS).name.prefix("other_")),
        on=_KEY,
    )
    parts = [
        both.select(
            pl.lit(dataset).alias("dataset"),
            *_KEY,
            pl.lit(name).alias("field"),
            "vendor",
            pl.col(name).alias("value"),
            "other_vendor",
            pl.col(f"other_{name}").alias("other_value"),
            ((pl.col(f"other_{name}") / pl.col(name) - 1) * 1e4).alias("difference_bps"),
        )
        for name in COMPARED_FIELDS
    ]
    found = pl.concat(parts).filter(pl.col("difference_bps").abs() > tolerance_bps)
    return found.match_to_schema(DIFFERENCES_SCHEMA).sort(*_KEY, "field", "other_vendor")


def between_vendors(
    winners: pl.DataFrame, good: pl.DataFrame, splits: pl.DataFrame, tolerance_bps: float, dataset: str
) -> pl.DataFrame:
    """`differences` between each bar and what other vendors said of it.

    `winners`: the bars; `good`: all rows that could have been, in the order of precedence: each vendor's last one is
    its word. A row that a user imported is a correction and contradicts nobody.
    """
    vendors = good.filter(pl.col("vendor") != IMPORT)
    if vendors["vendor"].n_unique() < 2:
        return pl.DataFrame(schema=DIFFERENCES_SCHEMA)
    words = vendors.unique([*_KEY, "vendor"], keep="last", maintain_order=True)
    others = words.join(winners.select(*_KEY, "vendor"), on=[*_KEY, "vendor"], how="anti")
    mine = winners.filter(pl.col("vendor") != IMPORT)
    return differences(as_traded(mine, splits), as_traded(others, splits), tolerance_bps, dataset)
