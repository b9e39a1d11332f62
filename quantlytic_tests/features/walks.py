"""Bars that tests of features are computed on: random walks with everything that a feature may read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from quantlytic_assets.features.registry import Registry
from quantlytic_assets.features.spec import Feature, FeatureSpec

START = datetime(2024, 1, 1, tzinfo=UTC)
REGISTRY = Registry()
REFERENCES = {"symbol": "SPY", "left": "yields_1d:^TNX", "right": "yields_1d:^IRX", "column": "log_ret_1"}


def walk(count: int, seed: int, symbol: str = "A", interval: str = "1h") -> pl.DataFrame:
    drawn = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(drawn.normal(0, 0.01, count)))
    opened = np.concatenate(([100], close[:-1]))[:count] * np.exp(drawn.normal(0, 0.002, count))
    high = np.maximum(opened, close) * np.exp(np.abs(drawn.normal(0, 0.003, count)))
    low = np.minimum(opened, close) * np.exp(-np.abs(drawn.normal(0, 0.003, count)))
    return pl.DataFrame(
        {
            "symbol": [symbol] * count,
            "interval": [interval] * count,
            "open_time": [START + timedelta(hours=hour) for hour in range(count)],
            "open": opened,
            "high": high,
            "low": low,
            "close": close,
            "volume": drawn.integers(0, 10_000, count).astype(float),
            "close:SPY": 300 * np.exp(np.cumsum(drawn.normal(0, 0.01, count))),
            "age:SPY": drawn.integers(0, 4_000, count).astype(float),
            "close:yields_1d:^TNX": 4 + 0.1 * drawn.normal(size=count),
            "close:yields_1d:^IRX": 5 + 0.1 * drawn.normal(size=count),
        },
        schema_overrides={"open_time": pl.Datetime("us", "UTC")},
    )


def default(spec: FeatureSpec) -> Feature:
    """The feature with its defaults, and some references where it needs them."""
    named = {one.name: REFERENCES[one.name] for one in spec.parameters if one.kind == "reference"}
    return spec.bind(**named)


def array(frame: pl.DataFrame, column: str) -> np.ndarray:
    return frame[column].cast(pl.Float64).fill_null(np.nan).to_numpy()
