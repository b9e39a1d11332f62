"""Charts of a symbol's features and of the labels of a stretch of sessions: PNG bytes out of frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date

import polars as pl

from quantlytic_assets.charts.figures import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    SHADE,
    SKY,
    legend,
    new_figure,
    nothing_to_draw,
    tidy,
    time_axis,
    title,
    to_png,
)

# More lines than these are no picture any more.
_MOST_FEATURES = 80
_AVERAGES = {"sma_20": BLUE, "sma_50": ORANGE, "sma_200": PURPLE}


def indicators(rows: pl.DataFrame, symbol: str, interval: str, since: date) -> bytes:
    """Close with its averages and bands, RSI and MACD of one symbol, oldest first.

    rows: features.indicators (session, open_time, close and what there is of sma_*, bb_*, rsi_14, macd*), a stretch
    that begins before `since` so that the averages can be read; sessions from `since` on have a white ground, those
    before a shaded one.
    """
    if rows.is_empty():
        return nothing_to_draw(f"no features of {symbol} at {interval}")
    at = list(range(len(rows)))
    figure = new_figure(10, 6.5)
    price, strength, divergence = figure.subplots(3, sharex=True, height_ratios=[3, 1.2, 1.2])
    price.plot(at, rows["close"].to_numpy(), color="black", linewidth=1.2, label="close")
    for name, colour in _AVERAGES.items():
        if name in rows.columns and rows[name].is_finite().any():
            price.plot(at, _values(rows, name), color=colour, linewidth=1.0, label=name)
    if {"bb_upper", "bb_lower"} <= set(rows.columns):
        low, high = _values(rows, "bb_lower"), _values(rows, "bb_upper")
        price.fill_between(at, low, high, color=SKY, alpha=0.2, linewidth=0, label="bb_lower to bb_upper")
    if "rsi_14" in rows.columns:
        strength.plot(at, _values(rows, "rsi_14"), color=BLUE, linewidth=1.0)
        for level in (30, 70):
            strength.axhline(level, color=GREY, linewidth=0.7, linestyle="--")
        strength.set_ylim(0, 100)
    if {"macd", "macd_signal", "macd_hist"} <= set(rows.columns):
        divergence.bar(at, _values(rows, "macd_hist"), 0.8, color=GREY, alpha=0.4, label="macd_hist")
        divergence.plot(at, _values(rows, "macd"), color=BLUE, linewidth=1.0, label="macd")
        divergence.plot(at, _values(rows, "macd_signal"), color=ORANGE, linewidth=1.0, label="macd_signal")
    own = int((rows["session"] >= since).sum())
    for axes, name in ((price, "price"), (strength, "rsi_14"), (divergence, "macd")):
        tidy(axes, name)
        if 0 < own < len(rows):
            axes.axvspan(-0.8, len(rows) - own - 0.5, color=SHADE, zorder=0, linewidth=0)
    time_axis(divergence, rows["open_time"].to_list())
    legend(price, ncols=5)
    legend(divergence)
    title(price, f"{symbol}, {interval}, UTC: {own:,} bars since {since} (shaded: before)")
    return to_png(figure)


def labels(rows: pl.DataFrame, what: str) -> bytes:
    """How forward returns are spread, up and down apart. rows: forward_return, label (0 or 1) of features.labels."""
    known = rows.drop_nulls(["forward_return", "label"])
    if known.is_empty():
        return nothing_to_draw(f"no labels of {what} are known yet")
    returns = known["forward_return"] * 100
    # The outermost percent of each side would squeeze all others together.
    low, high = returns.quantile(0.005), returns.quantile(0.995)
    shown = known.with_columns(returns.clip(low, high).alias("forward_return"))
    figure = new_figure(10, 3.6)
    axes = figure.add_subplot()
    edges = [low + (high - low) * i / 60 for i in range(61)] if high > low else 10
    parts = [shown.filter(pl.col("label") == label)["forward_return"].to_numpy() for label in (0, 1)]
    counts = [len(part) for part in parts]
    axes.hist(parts, edges, stacked=True, color=[RED, GREEN], label=[f"not up: {counts[0]:,}", f"up: {counts[1]:,}"])
    axes.axvline(0, color="black", linewidth=0.8)
    tidy(axes, "bars")
    axes.set_xlabel("forward return, percent", fontsize=9)
    legend(axes)
    title(axes, f"{what}: {len(known):,} labels, {counts[1] / len(known):.1%} up, mean {returns.mean():+.3f} %")
    return to_png(figure)


def family(rows: pl.DataFrame, columns: Sequence[str], what: str) -> bytes:
    """Null share, rank IC with the next return and distribution of each feature of a family, one line a feature.

    rows: the columns, scale-free, and forward_return, null where it is not known. The IC is Spearman's correlation over
    all rows; the grey band is where nine of ten of unrelated ones would lie. A distribution is drawn in its own
    interquartile ranges about its median: the line from the 5th to the 95th percentile, the bar of the middle half.
    """
    columns = list(columns)[:_MOST_FEATURES]
    figure = new_figure(10, 1.6 + 0.24 * len(columns))
    nulls, ics, spread = figure.subplots(1, 3, sharey=True)
    places = list(range(len(columns)))
    shares = [rows[name].null_count() / len(rows) * 100 for name in columns]
    nulls.barh(places, shares, 0.7, color=GREY)
    nulls.set_xlim(0, 100)
    found = [_rank_ic(rows.select(name, "forward_return")) for name in columns]
    known = rows["forward_return"].count()
    noise = 1.645 / math.sqrt(known) if known else 0.0
    ics.axvspan(-noise, noise, color=SHADE, zorder=0, linewidth=0)
    ics.barh(places, [value or 0.0 for value in found], 0.7, color=[GREEN if (one or 0) > 0 else RED for one in found])
    for place, name in zip(places, columns, strict=True):
        low, first, middle, third, high = (rows[name].quantile(level) for level in (0.05, 0.25, 0.5, 0.75, 0.95))
        width = (third or 0.0) - (first or 0.0)
        if width > 0:
            spread.hlines(place, (low - middle) / width, (high - middle) / width, color=BLUE, linewidth=1.0)
            spread.barh(place, 1.0, 0.6, left=(first - middle) / width, color=SKY)
            spread.plot([0.0], [place], "|", color="black", markersize=6)
    for axes, label in ((nulls, "null, percent"), (ics, "rank IC"), (spread, "distribution")):
        tidy(axes, "")
        axes.set_xlabel(label, fontsize=9)
    nulls.set_yticks(places, columns, fontsize=8)
    nulls.invert_yaxis()
    title(nulls, f"{what}: {len(rows):,} bars, {known:,} of them with a known return")
    return to_png(figure)


def _rank_ic(pairs: pl.DataFrame) -> float | None:
    """Spearman's correlation of two columns; None where it is not defined."""
    both = pairs.drop_nulls()
    if len(both) < 3:
        return None
    value = both.select(pl.corr(*both.columns, method="spearman")).item()
    return value if value is not None and math.isfinite(value) else None


def _values(rows: pl.DataFrame, name: str):
    return rows[name].cast(pl.Float64).to_numpy()
