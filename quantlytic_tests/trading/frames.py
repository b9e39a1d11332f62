"""Strategies, bars and predictions for the tests of trading."""

from __future__ import annotations

from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path

import polars as pl

import quantlytic_assets
from quantlytic_assets.storage.ledger import Ledger
from quantlytic_assets.universe.models import Costs, Strategy

FIRST_CREATED = datetime(2020, 1, 1, tzinfo=UTC)


def strategy(**changes) -> Strategy:
    settings = dict(
        name="momentum_1d",
        dataset="equities_1d",
        interval="1d",
        symbols=("AAA", "BBB"),
        model="logistic_regression",
        features=None,
        horizon=1,
        retrain="yearly",
        min_train_sessions=50,
        embargo_sessions=5,
        broker="simulated",
        capital=10_000.0,
        costs=Costs(10.0, 20.0),
    )
    return Strategy(**(settings | changes))


def ledger_in(directory, **options) -> Ledger:
    return Ledger(f"sqlite:///{directory}/ledger.sqlite", **options)


def daily(rows: list[tuple[str, date, float, float]]) -> pl.DataFrame:
    """Bars of (symbol, session, open, close), 14:30 to 21:00 UTC."""
    frame = pl.DataFrame(
        rows, {"symbol": pl.String, "session": pl.Date, "open": pl.Float64, "close": pl.Float64}, orient="row"
    )
    return timed(frame)


def timed(frame: pl.DataFrame) -> pl.DataFrame:
    midnight = pl.col("session").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return frame.with_columns(
        (midnight + pl.duration(hours=14, minutes=30)).alias("open_time"),
        (midnight + pl.duration(hours=21)).alias("available_at"),
    )


def predict(bars: pl.DataFrame, ups: pl.Expr | list[int]) -> pl.DataFrame:
    """A prediction for every bar: `ups` as a list in the order of bars, or as an expression."""
    up = pl.Series("prediction", ups, pl.Int64) if isinstance(ups, list) else ups.cast(pl.Int64).alias("prediction")
    return bars.select("symbol", "session", "open_time", "available_at", up).with_columns(
        pl.lit("momentum_1d").alias("strategy"),
        pl.col("prediction").cast(pl.Float64).alias("score"),
        pl.lit("3").alias("model_version"),
    )


@cache
def real_bars() -> pl.DataFrame:
    """Shipped daily bars of AAPL, KO and SPY, 2014 and 2015."""
    path = Path(quantlytic_assets.__file__).parent / "vendors/sample_data/equities_1d.parquet"
    shipped = pl.read_parquet(path).filter(
        pl.col("symbol").is_in(["AAPL", "KO", "SPY"]), pl.col("session").dt.year().is_in([2014, 2015])
    )
    return timed(shipped.select("symbol", "session", "open", "close").sort("session", "symbol"))


def real_case() -> tuple[Strategy, pl.DataFrame, pl.DataFrame, pl.Series]:
    """(strategy, predictions, bars, sessions) on the shipped bars: what rose over the session is said to rise.

    On the last session everything is, so that there are orders without a next bar.
    """
    bars = real_bars()
    return (
        strategy(symbols=("AAPL", "KO", "SPY"), capital=100_000.0, costs=Costs(1.0, 2.0)),
        predict(bars, (pl.col("close") > pl.col("open")) | (pl.col("session") == bars["session"].max())),
        bars,
        bars["session"].unique().sort(),
    )


def rows_of(ledger: Ledger, name: str = "momentum_1d") -> tuple[list, list, list]:
    """Everything the ledger says of a strategy, but when it was written."""
    return (
        ledger.decided_sessions(name).to_list(),
        ledger.orders(name).drop("created_at").rows(),
        ledger.fills(name).rows(),
    )
