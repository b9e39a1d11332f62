"""What a session came to, of its bars: open to close, volume, average price, how much prices moved."""

from __future__ import annotations

import polars as pl

# A row a session: prices and volume of its bars together; vwap of typical prices, (h + l + c) / 3, by volume;
# return_open_close and range as shares of the open; volatility: deviation (ddof 1) of the log returns of its bars, not
# annualised.
FIGURES = (
    "open", "high", "low", "close", "volume", "bars", "vwap", "return_open_close", "range", "volatility",
)  # fmt: skip


def session_figures(bars: pl.DataFrame) -> pl.DataFrame:
    """symbol, session and FIGURES of bars (symbol, session, t, o, h, l, c, v), by symbol and session.

    Where nothing was traded vwap is null, and of a single bar volatility.
    """
    typical = (pl.col("h") + pl.col("l") + pl.col("c")) / 3
    volume = pl.col("v").sum()
    return (
        bars.sort("symbol", "t")
        .group_by("symbol", "session", maintain_order=True)
        .agg(
            pl.col("o").first().alias("open"),
            pl.col("h").max().alias("high"),
            pl.col("l").min().alias("low"),
            pl.col("c").last().alias("close"),
            volume.alias("volume"),
            pl.len().alias("bars"),
            pl.when(volume > 0).then((typical * pl.col("v")).sum() / volume).alias("vwap"),
            (pl.col("c").last() / pl.col("o").first() - 1).alias("return_open_close"),
            ((pl.col("h").max() - pl.col("l").min()) / pl.col("o").first()).alias("range"),
            pl.col("c").log().diff().std().alias("volatility"),
        )
        .select("symbol", "session", *FIGURES)
    )


def with_close_returns(figures: pl.DataFrame) -> pl.DataFrame:
    """One symbol's figures with `return_close_close`, against the close of the session before; null of the first."""
    return figures.with_columns((pl.col("close") / pl.col("close").shift() - 1).alias("return_close_close"))
