"""Features of many bars at once.

Bars of a symbol and interval lie one after another in contiguous arrays; every kernel goes over these groups. Which
bars to read, and where the rows go, is the caller's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import polars as pl
import pyarrow as pa

from quantlytic_assets.features.fields import Fields, numbers
from quantlytic_assets.features.kernels.base import Outputs
from quantlytic_assets.features.kernels.chain import Chain
from quantlytic_assets.features.registry import Registry
from quantlytic_assets.features.spec import Feature, Scale, column_names

GROUP = ("symbol", "interval")


def compute(
    bars: pl.DataFrame,
    features: Sequence[Feature],
    registry: Registry | None = None,
    stored: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """The bars with their features, for many symbols and intervals at once.

    `bars` has symbol, interval, open_time, close and what the features read, and any other columns, which are carried
    along; rows may be in any order. A bar without a close is in no window, and its row has nulls; so has a feature at a
    bar that lacks one of its inputs. An optional Boolean column `lookback` marks rows that only warm up and are not
    returned: the last `warmup` bars of each group, or all there are.
    Optional columns: `shares` (how many shares one first share has become; features are computed on the price times
    that, and prices are given back in the bar's own shares), `listing` (where it changes, everything starts over),
    `session`, `vwap`, and `close:NAME` for features that read another symbol.

    `registry` knows the features that a cross-section is over where their column is neither declared nor in the bars.
    `stored` has symbol, interval, open_time and the columns of cumulative features, at most one row a group: their
    values at a look-back bar, from which the sums go on. Without it they begin with the first bar given.

    Returns the rows that are not look-back, by symbol, interval and open_time, with the features' columns added.
    """
    bars = in_order(bars)
    columns = column_names(features)
    usable = bars.filter(pl.col("close").is_not_null()) if bars["close"].null_count() else bars
    values = _values(usable, features, registry, stored)
    kept = None
    if "lookback" in bars.columns:
        lookback = usable["lookback"].fill_null(False).to_numpy()
        kept = np.flatnonzero(~lookback) if lookback.any() else None
    result = (usable if kept is None else usable[kept]).drop("lookback", strict=False).with_columns(
        _series(name, values[name] if kept is None else values[name][kept]) for name in columns
    )  # fmt: skip
    if usable is bars:
        return result
    rest = bars.filter(pl.col("close").is_null(), ~pl.col("lookback") if "lookback" in bars.columns else True)
    nulls = rest.drop("lookback", strict=False).with_columns(
        pl.lit(None, dtype=pl.Float64).alias(name) for name in columns
    )
    return pl.concat([result, nulls]).sort(*GROUP, "open_time")


def prepare() -> None:
    """Compile the kernels of the set `core` where their machine code is not kept yet, by computing it of a few bars.

    That takes a processor some seconds, once an installation.
    """
    count = 300
    start = datetime(2000, 1, 3, tzinfo=UTC)
    bars = pl.select(
        symbol=pl.repeat("A", count),
        interval=pl.repeat("1d", count),
        open_time=pl.datetime_range(start, start + timedelta(days=count), "1d", closed="left"),
        **{name: pl.repeat(1.0, count) for name in ("open", "high", "low", "close", "volume")},
    )
    compute(bars, Registry().features(["core"]))


def in_order(bars: pl.DataFrame) -> pl.DataFrame:
    """The bars by symbol, interval and time; those that are in order already are not copied."""
    starts = _starts(bars, GROUP)
    groups = bars[starts].select(GROUP).rows()
    times = bars["open_time"].to_physical().to_numpy()
    ahead = np.diff(times) >= 0
    ahead[starts[1:] - 1] = True
    if ahead.all() and all(one < other for one, other in pairwise(groups)):
        return bars
    # Bars come in stretches of a group. By the places of groups, as numbers, they are sorted in a third of the time
    # that their texts take.
    places = {group: place for place, group in enumerate(sorted(set(groups)))}
    own = np.repeat([places[group] for group in groups], np.diff(starts, append=len(bars)))
    return bars[np.lexsort((times, own))]


def _starts(bars: pl.DataFrame, names: Sequence[str]) -> np.ndarray:
    """Where a stretch of bars begins that are equal in these columns."""
    first = np.zeros(len(bars), dtype=bool)
    first[:1] = True
    for name in names:
        runs = bars[name].rle().struct.field("len").to_numpy()
        first[np.cumsum(runs)[:-1]] = True
    return np.flatnonzero(first)


def _values(
    bars: pl.DataFrame, features: Sequence[Feature], registry: Registry | None, stored: pl.DataFrame | None
) -> dict[str, np.ndarray]:
    """The values of every column, in shares of the bars' own session."""
    own = [one for one in features if one.spec.kind != "cross_section"]
    across = [one for one in features if one.spec.kind == "cross_section"]
    values = _of_groups(bars, own, stored)
    if across:
        wanted = {one.inputs[0] for one in across} - {*values, *bars.columns}
        known = registry or Registry() if wanted else None
        values |= _of_groups(bars, [known.of_column(name) for name in sorted(wanted)], stored) if known else {}
        values |= _of_times(bars, across, values)
    return values


def _of_groups(bars: pl.DataFrame, features: Sequence[Feature], stored: pl.DataFrame | None) -> dict[str, np.ndarray]:
    """Features of one symbol after another."""
    if not features:
        return {}
    fields = Fields(bars, list(dict.fromkeys(name for feature in features for name in feature.inputs)))
    group = [*GROUP, "listing"] if "listing" in bars.columns else GROUP
    starts = _starts(bars, group)
    stops = np.append(starts, len(bars))[1:]

    made: dict[tuple, Outputs] = {}
    result: dict[str, np.ndarray] = {}
    for feature in features:
        key = (feature.spec.name, feature.values)
        if key not in made:
            made[key] = _computed(feature, fields, starts, stops, made)
        for name, place, scale in zip(feature.columns, feature.selected, feature.scales, strict=True):
            values = made[key][place]
            if feature.spec.cumulative and stored is not None:
                known = bars.select(*GROUP, "open_time").join(
                    stored.select(*GROUP, "open_time", pl.col(name).cast(pl.Float64)),
                    on=[*GROUP, "open_time"], how="left", maintain_order="left",
                )[name]  # fmt: skip
                values = _continued(values, known, scale, fields.shares, starts, stops)
            if fields.shares is not None and scale != "ratio":
                values = values * fields.shares if scale == "volume" else values / fields.shares
            result[name] = values
    return result


def _continued(
    values: np.ndarray,
    stored: pl.Series,
    scale: Scale,
    shares: np.ndarray | None,
    starts: np.ndarray,
    stops: np.ndarray,
) -> np.ndarray:
    """Sums that go on from a stored value: from its bar on, to the end of its group, all are moved by one number.

    `stored` is null at other bars. `values` are on the scale without splits, stored ones in the bar's own shares.
    """
    result = values.copy()
    known = numbers(stored)
    for place in np.flatnonzero(~np.isnan(known) & ~np.isnan(values)).tolist():
        value = known[place]
        if shares is not None and scale != "ratio":
            value = value / shares[place] if scale == "volume" else value * shares[place]
        stop = stops[np.searchsorted(starts, place, side="right") - 1]
        result[place:stop] = values[place:stop] + (value - values[place])
    return result


def _computed(
    feature: Feature, fields: Fields, starts: np.ndarray, stops: np.ndarray, made: dict[tuple, Outputs]
) -> Outputs:
    """The outputs of a feature at every bar; bars that lack one of its inputs are left out of its series."""
    kernel, inputs, usable = feature.kernel(), fields.rows(feature.inputs), fields.usable(feature.inputs)
    if usable is None:
        if isinstance(kernel, Chain) and kernel.of in made:
            return kernel.after(made[kernel.of][0], starts, stops)
        return kernel.batch(inputs, starts, stops)
    before = np.concatenate(([0], np.cumsum(usable)))
    dense = kernel.batch(np.ascontiguousarray(inputs[:, usable]), before[starts], before[stops])
    result = np.full((kernel.outputs, inputs.shape[1]), np.nan)
    for row, values in zip(result, dense, strict=True):
        row[usable] = values
    return result


def _of_times(bars: pl.DataFrame, features: Sequence[Feature], known: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Features across all symbols of one interval and time."""
    times = bars.select("interval", "open_time").with_row_index("place").sort("interval", "open_time", "place")
    order = times["place"].to_numpy()
    starts = _starts(times, ("interval", "open_time"))
    stops = np.append(starts, len(bars))[1:]
    result = {}
    for feature in features:
        (name,) = feature.inputs
        values = known[name] if name in known else numbers(bars[name])
        dense = feature.kernel().batch(np.ascontiguousarray(values[order])[np.newaxis], starts, stops)[0]
        result[feature.columns[0]] = np.empty(len(bars))
        result[feature.columns[0]][order] = dense
    return result


def _series(name: str, values: np.ndarray) -> pl.Series:
    """A column with nulls for NaN, made without a copy of the values."""
    known = ~np.isnan(values)
    data = pa.py_buffer(np.ascontiguousarray(values))
    validity = None if known.all() else pa.py_buffer(np.packbits(known, bitorder="little"))
    return pl.Series(name, pa.Array.from_buffers(pa.float64(), len(values), [validity, data]))
