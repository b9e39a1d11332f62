"""From indicator rows to a design matrix that means the same at every price level.

Indicators themselves are computed in the lake (dbt); here they are only made scale-free, joined to their labels and
rid of rows that miss a value. Splitting by time is in `splits`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import polars as pl

from quantlytic_assets.features.registry import Registry
from quantlytic_assets.features.spec import column_names

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


@cache
def core_columns() -> tuple[str, ...]:
    """The columns of the feature set `core`, in their order."""
    return tuple(column_names(Registry().features(["core"])))


def resolve_features(features: Sequence[str] | None) -> tuple[str, ...]:
    """The features to use: `core_columns` for None, else the named ones in their given order.

    Raises `ValueError` where one is named twice, or none is named.
    """
    if features is None:
        return core_columns()
    if len(set(features)) != len(features) or not features:
        raise ValueError("features must name at least one feature and none of them twice")
    return tuple(features)


def design_columns(features: Sequence[str] | None = None) -> list[str]:
    """The columns of features.indicators that `design_matrix` reads for these features, in no order that matters."""
    return list(dict.fromkeys((*KEY_COLUMNS, "close", "ret_1", *resolve_features(features))))


def scale_free(name: str, scale: str) -> pl.Expr:
    """A feature as it can be compared between symbols: a price over the close, less one; a volume as it is."""
    if scale == "price":
        return (pl.col(name) / pl.col("close") - 1).alias(name)
    if scale == "price_difference":
        return (pl.col(name) / pl.col("close")).alias(name)
    return pl.col(name)


def library_scales(features: Sequence[str] | None) -> dict[str, str]:
    """What each column of the library's features is proportional to: ratio, price, price_difference or volume.

    Raises `ValueError` for a column that no feature of the library has.
    """
    registry = Registry()
    found: dict[str, str] = {}
    for name in resolve_features(features):
        feature = registry.of_column(name)
        found[name] = feature.scales[feature.columns.index(name)]
    return found


def design_matrix(
    indicators: pl.DataFrame, features: Sequence[str] | None = None, scales: Mapping[str, str] | None = None
) -> Design:
    """Scale-free features of indicator rows.

    `indicators` has the columns of features.indicators (`KEY_COLUMNS`, `close`, `ret_1` and the used features, prices
    in the symbol's currency). `scales` says what each is proportional to, default as `library_scales`. Prices become
    value / close - 1, differences of prices value / close; ratios stay. Raises `ValueError` for unknown features.
    """
    names = resolve_features(features)
    scales = library_scales(features) if scales is None else scales
    for name in names:
        if scales[name] == "volume":
            raise ValueError(f"{name} is a volume, which means another thing for each symbol: leave it out")
    frame = indicators.select(
        *KEY_COLUMNS,
        *(scale_free(name, scales[name]).cast(pl.Float64) for name in names),
        pl.col("ret_1").alias("last_return"),
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
