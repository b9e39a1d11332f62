"""Charts of bars and of their coverage for people who would rather look: PNG bytes out of frames.

Nothing is decided here; figures in numbers are the tables' business.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta

import polars as pl

from quantlytic_assets.charts.figures import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    legend,
    new_figure,
    nothing_to_draw,
    short_numbers,
    tidy,
    time_axis,
    title,
    to_png,
    whole_numbers,
)
from quantlytic_assets.schemas.vocabulary import CAUSES

_COMPLETE = "#d9ead3"
_CAUSE_COLOURS = {"outage": RED, "no_trade": SKY, "vendor_hole": PURPLE, "not_fetched": ORANGE, "unknown": GREY}
# A session with a single missing bar must be seen beside complete ones.
_LEAST_SHADE = 0.35
_MOST_COLUMNS = 600
_MOST_CANDLES = 120
_UP, _DOWN = GREEN, RED

# What a heat map is drawn from: columns of clean.coverage.
HEAT_MAP_COLUMNS = ("symbol", "session", "expected_bars", "missing_bars", "cause")


def heat_cells(coverage: pl.DataFrame, most_columns: int) -> tuple[pl.DataFrame, list[date]]:
    """What a heat map shows: cells of symbol, column, share (missing of expected) and cause; and the columns' days.

    `coverage`: HEAT_MAP_COLUMNS of one dataset. Where sessions outnumber the columns a column stands for several
    and shows the worst of them; its day is its first session's. Nothing expected makes no cell.
    """
    sessions = coverage["session"].unique().sort()
    columns = min(len(sessions), most_columns)
    places = pl.DataFrame({"session": sessions}).with_columns(
        (pl.int_range(pl.len(), dtype=pl.Int64) * columns // max(1, len(sessions))).alias("column")
    )
    cells = (
        coverage.filter(pl.col("expected_bars") > 0)
        .join(places, on="session")
        .select(
            "symbol", "column", "session", (pl.col("missing_bars") / pl.col("expected_bars")).alias("share"), "cause"
        )
        .sort("share", "session", descending=[True, False])
        .unique(["symbol", "column"], keep="first", maintain_order=True)
        .drop("session")
    )
    return cells, places.group_by("column").agg(pl.col("session").min()).sort("column")["session"].to_list()


def heat_map(coverage: pl.DataFrame) -> bytes:
    """Symbol × session: green where complete, else the main cause's colour, the stronger the more is missing.

    `coverage`: HEAT_MAP_COLUMNS of one dataset, drawn as `heat_cells` says. White: not in the universe on that
    session, or nothing expected yet.
    """
    import numpy as np
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch

    symbols = coverage["symbol"].unique().sort().to_list()
    cells, firsts = heat_cells(coverage, _MOST_COLUMNS)
    columns = len(firsts)
    image = np.ones((max(1, len(symbols)), max(1, columns), 3))
    rows = cells["symbol"].cast(pl.Enum(symbols)).to_physical().to_numpy()
    share = cells["share"].to_numpy()[:, None]
    # One look-up of colours for all cells; the first is a complete one's.
    names = ["complete", *CAUSES]
    kind = cells["cause"].fill_null(names[0]).cast(pl.Enum(names)).to_physical().to_numpy()
    palette = np.array([to_rgb(_COMPLETE), *(to_rgb(_CAUSE_COLOURS[cause]) for cause in CAUSES)])
    shade = np.where(share > 0, _LEAST_SHADE + (1 - _LEAST_SHADE) * share, 0.0)
    image[rows, cells["column"].to_numpy()] = (1 - shade) * palette[0] + shade * palette[kind]

    figure = new_figure(12, 1.4 + 0.3 * len(symbols))
    axes = figure.add_subplot()
    axes.imshow(image, aspect="auto", interpolation="nearest")
    axes.set_yticks(range(len(symbols)), symbols)
    marks = sorted({round(i * (columns - 1) / 7) for i in range(8)}) if columns else []
    axes.set_xticks(marks, [firsts[mark].isoformat() for mark in marks])
    axes.tick_params(length=2, labelsize=8)
    title(axes, coverage_title(coverage, columns))
    seen = set(coverage["cause"].drop_nulls())
    legend = [Patch(color=_COMPLETE, label="complete")]
    legend += [Patch(color=_CAUSE_COLOURS[cause], label=cause) for cause in CAUSES if cause in seen]
    figure.legend(handles=legend, ncols=6, fontsize=8, frameon=False, loc="outside upper right")
    return to_png(figure)


def coverage_title(coverage: pl.DataFrame, columns: int) -> str:
    """What a heat map says above it of just those sessions that are drawn, in so many columns.

    Per cent are rounded down: 100.00 % means that nothing is missing.
    """
    if coverage.is_empty():
        return "nothing expected yet"
    expected, present = coverage["expected_bars"].sum(), coverage["present_bars"].sum()
    sessions, first, last = coverage["session"].n_unique(), coverage["session"].min(), coverage["session"].max()
    part = "nothing expected yet"
    if expected:
        percent = present * 10_000 // expected / 100
        part = f"{present:,} of {expected:,} bars present ({percent:.2f}%)"
    each = "" if sessions <= columns else f", a column is the worst of about {sessions / columns:.1f}"
    return f"{coverage['dataset'][0]}, {first} to {last}: {part}, {_counted(sessions, 'session')}{each}"


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def timeline(coverage: pl.DataFrame, opens: datetime, closes: datetime) -> bytes:
    """Symbol × time of one session: green where bars are, else the colour of the cause of what is missing.

    coverage: rows of one dataset and session. opens, closes: the session's, UTC.
    """
    from matplotlib.patches import Patch

    known = coverage.filter(pl.col("expected_bars") > 0).sort("symbol")
    if known.is_empty():
        return nothing_to_draw("nothing is expected in this session yet")
    minutes = (closes - opens).total_seconds() / 60
    figure = new_figure(12, 1.4 + 0.3 * len(known))
    axes = figure.add_subplot()
    seen: set[str] = set()
    for row, (_, ranges) in enumerate(known.select("symbol", "missing_ranges").rows()):
        axes.broken_barh([(0, minutes)], (row - 0.4, 0.8), color=_COMPLETE, linewidth=0)
        for hole in ranges or []:
            begin, end = ((hole[edge] - opens).total_seconds() / 60 for edge in ("start", "end"))
            # One missing minute of a day would be less than a dot.
            width = max(end - begin, minutes / 400)
            axes.broken_barh([(begin, width)], (row - 0.4, 0.8), color=_CAUSE_COLOURS[hole["cause"]], linewidth=0)
            seen.add(hole["cause"])
    axes.set_yticks(range(len(known)), known["symbol"].to_list())
    axes.invert_yaxis()
    marks = [minutes * i / 8 for i in range(9)]
    axes.set_xticks(marks, [(opens + timedelta(minutes=mark)).strftime("%H:%M") for mark in marks])
    axes.set_xlim(0, minutes)
    axes.tick_params(length=2, labelsize=8)
    expected, present = known["expected_bars"].sum(), known["present_bars"].sum()
    day = known["session"][0]
    title(
        axes,
        f"{known['dataset'][0]} {day}: {present:,} of {expected:,} bars present, {expected - present:,} missing, UTC",
    )
    marked = [Patch(color=_COMPLETE, label="present")]
    marked += [Patch(color=_CAUSE_COLOURS[cause], label=cause) for cause in CAUSES if cause in seen]
    figure.legend(handles=marked, ncols=6, fontsize=8, frameon=False, loc="outside upper right")
    return to_png(figure)


def candles(bars: pl.DataFrame, symbol: str, fills: pl.DataFrame | None = None) -> bytes:
    """Open, high, low, close and volume of one symbol's bars (CLEAN_SCHEMA), drawn as at most 120 candles.

    Where there are more bars a candle stands for several neighbouring ones. Times are UTC. fills: fill_time, side
    (buy or sell) and price of the symbol's fills, each drawn at its price in the candle that it falls into.
    """
    own = bars.filter(pl.col("symbol") == symbol).sort("open_time")
    together = max(1, -(-len(own) // _MOST_CANDLES))
    drawn = own.group_by((pl.int_range(pl.len()) // together).alias("at"), maintain_order=True).agg(
        pl.col("open_time", "open").first(),
        pl.col("high").max(),
        pl.col("low").min(),
        pl.col("close").last(),
        pl.col("volume").sum(),
    )
    at = drawn["at"].to_numpy()
    hues = [_UP if rises else _DOWN for rises in drawn["close"] >= drawn["open"]]
    figure = new_figure(10, 5)
    price, volume = figure.subplots(2, sharex=True, height_ratios=[3, 1])
    price.vlines(at, drawn["low"].to_numpy(), drawn["high"].to_numpy(), colors=hues, linewidth=0.8)
    body = (drawn["close"] - drawn["open"]).to_numpy()
    price.bar(at, body, 0.7, bottom=drawn["open"].to_numpy(), color=hues, edgecolor=hues, linewidth=0.8)
    if fills is not None:
        within = drawn["open_time"].search_sorted(fills["fill_time"], side="right").cast(pl.Int64).to_numpy() - 1
        for side, marker, colour in (("buy", "^", BLUE), ("sell", "v", PURPLE)):
            own_side = (fills["side"] == side).to_numpy()
            prices = fills["price"].to_numpy()[own_side]
            price.scatter(within[own_side], prices, s=42, marker=marker, color=colour, zorder=3, label=side)
        legend(price)
    volume.bar(at, drawn["volume"].to_numpy(), 0.7, color=hues)
    time_axis(volume, drawn["open_time"].to_list())
    tidy(price, "price")
    whole_numbers(price)
    tidy(volume, "volume")
    short_numbers(volume)
    each = "" if together == 1 else f", {together} to a candle"
    traded = "" if fills is None else f", {_counted(len(fills), 'fill')}"
    title(price, f"{symbol}: {len(own):,} bars{each}{traded}, UTC")
    return to_png(figure)
