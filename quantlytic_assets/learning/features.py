"""From indicator rows to a design matrix that means the same at every price level.

Indicators themselves are computed in the lake (dbt); here they are only made scale-free, joined to their labels and
rid of rows that miss a value. Splitting by time is in `splits`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from quantlytic_assets.market_data.indicators import INDICATORS

# Price levels: shown as distance from the close.
_LEVELS = ("sma_20", "sma_50", "sma_200", "ema_12", "ema_20", "ema_26", "bb_middle", "bb_upper", "bb_lower")
# Price differences: shown as a share of the close.
_DIFFERENCES = ("macd", "macd_signal", "macd_hist", "atr_14")

# What a strategy may list under `features`, in the order the matrix has them.
FEATURE_COLUMNS: tuple[str, ...] = INDICATORS

KEY_COLUMNS: tuple[str, ...] = ("dataset", "symbol", "session", "interval", "open_time", "available_at")
LABEL_COLUMNS: tuple[str, ...] = ("forward_return", "label", "label_available_at")


@dataclass(frozen=True)
class Design:
    """A design matrix.

    frame: `KEY_COLUMNS`, then `feature_names`, then `last_return` (ret_1 as it is, for the persistence baseline;
    may be null), sorted by open_time and symbol. left_out: rows dropped because a used feature was null or not finite.
    """

    frame: pl.DataFrame
    feature_names: tuple[str, ...]
    left_out: int


def resolve_features(features: Sequence[str] | None) -> tuple[str, ...]:
    """The features to use: all of `FEATURE_COLUMNS` for None, else the named ones in their given order.

    Raises `ValueError` naming every unknown or repeated one.
    """
    if features is None:
        return FEATURE_COLUMNS
    unknown = [name for name in features if name not in FEATURE_COLUMNS]
    if unknown:
        raise ValueError(f"unknown features {', '.join(unknown)}: take from {', '.join(FEATURE_COLUMNS)}")
    if len(set(features)) != len(features) or not features:
        raise ValueError("features must name at least one feature and none of them twice")
    return tuple(features)


def design_columns(features: Sequence[str] | None = None) -> list[str]:
    """The columns of features.indicators that `design_matrix` reads for these features, in no order that matters."""
    return list(dict.fromkeys((*KEY_COLUMNS, "close", "ret_1", *resolve_features(features))))


def _scaled(name: str) -> pl.Expr:
    if name in _LEVELS:
        return (pl.col(name) / pl.col("close") - 1).alias(name)
    if name in _DIFFERENCES:
        return (pl.col(name) / pl.col("close")).alias(name)
    return pl.col(name)


def design_matrix(indicators: pl.DataFrame, features: Sequence[str] | None = None) -> Design:
    """Scale-free features of indicator rows.

    `indicators` has the columns of features.indicators (`KEY_COLUMNS`, `close`, `ret_1` and the used features, prices
    in the symbol's currency). Moving averages and bands become value / close - 1, macd* and atr_14 value / close;
    returns, rsi_14 (0 to 100) and vol_20 stay. Raises `ValueError` for unknown features.
    """
    names = resolve_features(features)
    frame = indicators.select(
        *KEY_COLUMNS, *(_scaled(name).cast(pl.Float64) for name in names), pl.col("ret_1").alias("last_return")
    )
    # A null makes is_finite null, and a filter drops it with the infinities and NaNs.
    complete = frame.filter(pl.all_horizontal(pl.col(names).is_finite())).sort("open_time", "symbol")
    return Design(complete, names, len(frame) - len(complete))


def with_labels(design: Design, labels: pl.DataFrame) -> pl.DataFrame:
    """The rows of a design matrix whose outcome is known: `design.frame` with `LABEL_COLUMNS`.

    `labels` has symbol, open_time and `LABEL_COLUMNS`, of one dataset, interval and horizon; a row with a null among
    them has no outcome. Raises `ValueError` if a bar has two labels, which means that horizons were mixed.
    """
    known = labels.select("symbol", "open_time", *LABEL_COLUMNS).drop_nulls()
    if known.select("symbol", "open_time").is_duplicated().any():
        raise ValueError("a bar has more than one label: pass the labels of one dataset, interval and horizon")
    return design.frame.join(known, on=["symbol", "open_time"], how="inner").sort("open_time", "symbol")
