"""Charts of what a strategy said and did: equity and drawdown, a partition's predictions and trades."""

from __future__ import annotations

import polars as pl

from quantlytic_assets.charts.figures import (
    BLUE,
    GREEN,
    GREY,
    RED,
    legend,
    new_figure,
    nothing_to_draw,
    tidy,
    time_axis,
    title,
    to_png,
)


def equity(curve: pl.DataFrame, benchmark: pl.DataFrame, name: str) -> bytes:
    """Equity of the strategy and of buy and hold above, their drawdowns in percent below.

    Both are portfolio.EQUITY_SCHEMA over the same sessions.
    """
    if curve.is_empty():
        return nothing_to_draw(f"{name} has not traded yet")
    figure = new_figure(10, 5.5)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1.2])
    for frame, label, colour in ((benchmark, "buy and hold", "#9a9a9a"), (curve, name, BLUE)):
        money = frame["equity"]
        fall = (money / money.cum_max() - 1).to_numpy() * 100
        above.plot(frame["session"].to_numpy(), money.to_numpy(), label=label, color=colour, linewidth=1.3)
        below.fill_between(frame["session"].to_numpy(), fall, 0, color=colour, alpha=0.4, linewidth=0)
    above.yaxis.set_major_formatter(lambda value, _position: f"{value:,.0f}")
    tidy(above, "equity")
    tidy(below, "drawdown, %")
    legend(above)
    title(above, f"{name}: {len(curve):,} sessions, {curve['session'][0]} to {curve['session'][-1]}")
    return to_png(figure)


def predictions(rows: pl.DataFrame, what: str) -> bytes:
    """Scores of each symbol, a row a symbol and a column a bar: blue above one half, red below, white at it.

    rows: ml.predictions (symbol, open_time, score).
    """
    if rows.is_empty():
        return nothing_to_draw(f"no predictions of {what}")
    wide = rows.pivot("symbol", index="open_time", values="score", aggregate_function="last").sort("open_time")
    symbols = sorted(name for name in wide.columns if name != "open_time")
    image = wide.select(symbols).to_numpy().astype(float).T
    figure = new_figure(10, 1.8 + 0.28 * len(symbols))
    axes = figure.add_subplot()
    far = max(0.02, float(abs(rows["score"] - 0.5).max() or 0.0))
    shown = axes.imshow(image, aspect="auto", interpolation="nearest", cmap="RdBu", vmin=0.5 - far, vmax=0.5 + far)
    bar = figure.colorbar(shown, ax=axes, pad=0.01)
    bar.set_label("P(up)", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    tidy(axes, "", grid=False)
    axes.set_yticks(range(len(symbols)), symbols)
    time_axis(axes, wide["open_time"].to_list())
    axes.set_xlim(-0.5, len(wide) - 0.5)
    up = (rows["score"] > 0.5).mean()
    title(axes, f"{what}: {len(rows):,} predictions, {up:.1%} of them up, UTC")
    return to_png(figure)


def trades(curve: pl.DataFrame, fills: pl.DataFrame, what: str) -> bytes:
    """Equity of a stretch of sessions above, and what was bought and sold in each below.

    curve: session, equity. fills: session, side, price, quantity.
    """
    if curve.is_empty():
        return nothing_to_draw(f"no sessions traded in {what}")
    figure = new_figure(10, 4.5)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1.2])
    at = {session: i for i, session in enumerate(curve["session"].to_list())}
    above.plot(range(len(curve)), curve["equity"].to_numpy(), color=BLUE, linewidth=1.3, marker="o", markersize=3)
    above.yaxis.set_major_formatter(lambda value, _position: f"{value:,.0f}")
    traded = fills.group_by("session", "side").agg((pl.col("price") * pl.col("quantity")).sum().alias("value"))
    for side, colour, sign in (("buy", GREEN, 1), ("sell", RED, -1)):
        own = traded.filter(pl.col("side") == side, pl.col("session").is_in(list(at)))
        places = [at[session] for session in own["session"]]
        below.bar(places, (own["value"] * sign).to_numpy(), 0.7, color=colour, label=side)
    below.axhline(0, color=GREY, linewidth=0.7)
    below.yaxis.set_major_formatter(lambda value, _position: f"{value:,.0f}")
    tidy(above, "equity")
    tidy(below, "traded value")
    legend(below)
    time_axis(below, curve["session"].to_list())
    title(above, f"{what}: {len(curve):,} sessions, {len(fills):,} fills")
    return to_png(figure)
