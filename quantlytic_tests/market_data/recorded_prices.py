"""Recorded prices, and the corporate actions that Lean's factor and map files imply: see data/prices/SOURCES.md."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl

from quantlytic_assets.market_data.actions.reconcile import CORPORATE_ACTIONS_SCHEMA
from quantlytic_assets.market_data.bars import CLEAN_SCHEMA

PRICES = Path(__file__).parents[1] / "data" / "prices"
FETCHED = datetime(2026, 1, 2, tzinfo=UTC)


def clean_bars(frame: pl.DataFrame, dataset: str = "recorded", adjustment: str = "none") -> pl.DataFrame:
    """CLEAN_SCHEMA daily bars of rows with symbol, session, prices and volume; columns that are there are kept."""
    opens = pl.col("session").cast(pl.Datetime("us", "UTC")) + pl.duration(hours=14, minutes=30)
    filled = {
        "dataset": pl.lit(dataset),
        "open_time": opens,
        "close_time": opens + pl.duration(hours=6, minutes=30),
        "vwap": pl.lit(None, pl.Float64),
        "trade_count": pl.lit(None, pl.Int64),
        "vendor": pl.lit("recorded"),
        "fetched_at": pl.lit(FETCHED),
        "adjustment": pl.lit(adjustment),
        "available_at": opens + pl.duration(hours=6, minutes=30),
        "flags": pl.lit([], pl.List(pl.String)),
    }
    missing = {name: value for name, value in filled.items() if name not in frame.columns}
    return frame.with_columns(**missing).select(CLEAN_SCHEMA.names()).cast(dict(CLEAN_SCHEMA))


def actions(*rows: tuple, dataset: str = "recorded") -> pl.DataFrame:
    """CORPORATE_ACTIONS_SCHEMA of (symbol, session, kind, value or new symbol, and perhaps known_on)."""
    made = []
    for i, (symbol, session, kind, value, *known) in enumerate(rows):
        renamed = kind == "rename"
        made.append(
            {
                "dataset": dataset,
                "symbol": symbol,
                "session": session,
                "kind": kind,
                "value": None if renamed else float(value),
                "new_symbol": value if renamed else None,
                "known_on": known[0] if known else session,
                "adjustment": "none",
                "vendor": "recorded",
                "recorded_at": FETCHED,
                "source_object": "recorded",
                "source_row": i,
            }
        )
    return pl.DataFrame(made, schema=CORPORATE_ACTIONS_SCHEMA)


def lean_bars(*symbols: str, first: date = date.min, last: date = date.max) -> pl.DataFrame:
    """Lean's raw daily bars."""
    rows = pl.read_parquet(PRICES / "lean_daily.parquet")
    return clean_bars(rows.filter(pl.col("symbol").is_in(symbols), pl.col("session").is_between(first, last)))


def lean_actions(symbol: str) -> pl.DataFrame:
    """Splits and dividends of a factor file.

    A row's factors hold up to and including its date; where the next row's differ, something took effect on the session
    after. Split factors are products of 1/ratio, price factors of 1 - dividend / close, the close being the row's own.
    """
    rows = pl.read_csv(PRICES / "lean_factor_files.csv", try_parse_dates=True).filter(symbol=symbol)
    sessions = lean_bars(symbol).select("session")
    steps = (
        rows.with_columns(
            (pl.col("split_factor").shift(-1) / pl.col("split_factor")).alias("ratio"),
            (pl.col("close") * (1 - pl.col("price_factor") / pl.col("price_factor").shift(-1))).alias("cash"),
            (pl.col("date") + pl.duration(days=1)).alias("from"),
        )
        .drop_nulls("ratio")
        .join_asof(sessions.sort("session"), left_on="from", right_on="session", strategy="forward", coalesce=False)
        .drop_nulls("session")
        .filter(pl.col("date") >= sessions["session"].min())
    )
    splits = steps.filter((pl.col("ratio") - 1).abs() > 1e-6).select("session", pl.lit("split"), "ratio")
    dividends = steps.filter(pl.col("cash") > 1e-9).select("session", pl.lit("dividend"), "cash")
    return actions(*((symbol, *row) for row in (*splits.iter_rows(), *dividends.iter_rows())))


def lean_renames() -> pl.DataFrame:
    """Renames of the map files: a row says until when the company had a ticker; the first row is where it begins."""
    rows = []
    files = pl.read_csv(PRICES / "lean_map_files.csv", try_parse_dates=True)
    for file in files.partition_by("file", include_key=False, maintain_order=True):
        begins, ticker = file.row(0)
        rows.append((ticker, begins, "rename", ticker))
        for (until, old), (_, new) in zip(file.rows(), file.rows()[1:], strict=False):
            if new != old:
                rows.append((old, date.fromordinal(until.toordinal() + 1), "rename", new))
    return actions(*rows)


def yahoo(source: str, symbol: str) -> pl.DataFrame:
    """session, yahoo_close, yahoo_adjusted as Yahoo gave them."""
    rows = pl.read_parquet(PRICES / "yahoo_daily.parquet").filter(source=source, symbol=symbol)
    return rows.select(
        "session", pl.col("close").alias("yahoo_close"), pl.col("adjusted_close").alias("yahoo_adjusted")
    ).drop_nulls()
