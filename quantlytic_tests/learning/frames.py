"""Strategies and deterministic frames for the tests of learning."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl

from quantlytic_assets.learning.features import core_columns
from quantlytic_assets.trading.engine.settings import EngineSettings
from quantlytic_assets.universe.models import ModelStrategy

SYMBOLS = ("AAA", "BBB", "CCC", "DDD")


def strategy(**changes) -> ModelStrategy:
    settings = dict(
        name="momentum_1d",
        dataset="equities_1d",
        interval="1d",
        symbols=SYMBOLS,
        model="logistic_regression",
        features=("ret_1", "sma_20", "rsi_14"),
        horizon=1,
        retrain="yearly",
        min_train_sessions=50,
        embargo_sessions=5,
        rule="model",
        settings=EngineSettings(100_000.0),
    )
    return ModelStrategy(**(settings | changes))


def weekdays(count: int, first: date = date(2014, 1, 1)) -> pl.Series:
    days = pl.date_range(first, first + timedelta(days=2 * count + 7), interval="1d", eager=True)
    return days.filter(days.dt.weekday() <= 5).head(count).alias("session")


def at(day: date, hour: int, minute: int = 0) -> datetime:
    return datetime(day.year, day.month, day.day, hour, minute, tzinfo=UTC)


def indicators(count: int = 400, symbols: tuple[str, ...] = SYMBOLS, seed: int = 7) -> pl.DataFrame:
    """Indicator rows of a random walk whose next move leans on the last one; all feature columns are filled."""
    random = np.random.default_rng(seed)
    parts = []
    for symbol in symbols:
        noise = random.normal(0, 0.01, count)
        returns = np.empty(count)
        returns[0] = noise[0]
        for i in range(1, count):
            returns[i] = 0.6 * returns[i - 1] + noise[i]
        close = 50 * np.exp(np.cumsum(returns))
        level = {name: close * (1 + random.normal(0, 0.02, count)) for name in core_columns() if name != "ret_1"}
        centred = ("log_ret_1", "vol_20", "macd", "macd_signal", "macd_hist")
        level |= {name: random.normal(0, 1, count) for name in centred}
        level |= {"rsi_14": random.uniform(20, 80, count), "ret_1": np.expm1(returns)}
        parts.append(pl.DataFrame({"session": weekdays(count), "close": close, **level, "symbol": [symbol] * count}))
    opened = pl.col("session").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return pl.concat(parts).with_columns(
        pl.lit("equities_1d").alias("dataset"),
        pl.lit("1d").alias("interval"),
        (opened + pl.duration(hours=14, minutes=30)).alias("open_time"),
        (opened + pl.duration(hours=21)).alias("available_at"),
    )


def labels(rows: pl.DataFrame, horizon: int = 1) -> pl.DataFrame:
    """What came of each bar, `horizon` bars later."""
    ahead = pl.col("close").shift(-horizon).over("symbol", order_by="open_time")
    known = pl.col("available_at").shift(-horizon).over("symbol", order_by="open_time")
    return rows.select(
        "symbol",
        "open_time",
        (ahead / pl.col("close") - 1).alias("forward_return"),
        (ahead > pl.col("close")).cast(pl.Int32).alias("label"),
        known.alias("label_available_at"),
    ).drop_nulls()
