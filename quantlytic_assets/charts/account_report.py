"""The HTML reports of an account and of a search: self-contained pages that need no network to be read.

They are made when somebody opens them, or at the end of a command; runs make none, for matplotlib takes seconds.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from quantlytic_assets.charts.accounts import equity
from quantlytic_assets.charts.figures import BLUE, GREEN, GREY, SKY, legend, new_figure, tidy, title, to_png
from quantlytic_assets.trading.figures import FIGURES, shown
from quantlytic_assets.trading.monte_carlo import resampled_returns, resampled_trades
from quantlytic_assets.trading.statistics.account import MONTHS, drawdowns, monthly_returns

if TYPE_CHECKING:
    from quantlytic_assets.services.accounts import Account
    from quantlytic_assets.trading.backtest.search import Search

_STYLE = (
    "body{font:14px/1.45 system-ui,Arial,sans-serif;max-width:62em;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;margin:.6em 0}"
    "td,th{padding:.15em .8em;text-align:right;border-bottom:1px solid #eee}"
    "td:first-child,th:first-child,.words td:last-child,.words th:last-child{text-align:left}"
    "img{width:100%}h2{margin-top:1.6em}"
    ".error{color:#a40000;font-weight:bold}.warning{color:#9c5700}.note{color:#555}"
    "@media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}td,th{border-color:#333}img{background:#fff}}"
)
_PATHS, _SEED = 1000, 7
_WORST = 5
# Naive forecasts, as their figures begin.
_NAIVE = ("persistence_", "always_up_")


def account_page(result: Account, back: str | None = None) -> str:
    """The page: verdict, review, figures beside buying and holding, charts, months, symbols, drawdowns, round trips.

    back: the address of the strategy's page, linked at the top.
    """
    curve, trips = result.curve, result.round_trips
    sessions = f"{len(curve):,} sessions, {curve['session'][0]} to {curve['session'][-1]}"
    parts = [
        f'<p><a href="{escape(back)}">{escape(result.strategy)}: all pages</a></p>' if back else "",
        f"<h1>{escape(result.strategy)}</h1>",
        f"<p>{escape(result.title)}: {sessions}.</p>",
        "<h2>Verdict</h2>" + "".join(f"<p>{escape(one)}</p>" for one in result.verdict),
        *(f'<p class="{one.severity}">{escape(one.severity)}: {escape(one.text)}</p>' for one in result.findings),
        "<h2>Figures</h2>" + _figures(result),
        *(["<h2>Forecasts</h2>" + _forecasts(result.forecasts)] if result.forecasts else []),
        "<h2>Equity and drawdown</h2>" + _picture(equity(curve, result.held, result.strategy), "equity and drawdown"),
        "<h2>Exposure and cash</h2>" + _picture(_invested(curve), "exposure and cash"),
        "<h2>What else could have come of it</h2>" + _resampled(result),
        "<h2>Months, percent</h2>" + _months(result),
        "<h2>Symbols</h2>" + _symbols(trips),
        *(["<h2>At the broker</h2>" + _at_broker(result.at_broker)] if len(result.at_broker) else []),
        "<h2>Deepest drawdowns</h2>" + _drawdowns(curve),
        "<h2>Round trips</h2>" + _trips(trips),
        "<h2>Settings</h2>" + _rows(["setting", "value"], result.settings.items(), "words"),
    ]
    return _page(result.strategy, parts)


def write_report(path: Path, page: str) -> None:
    """Write the page, in place of an older one at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    draft.write_text(page, encoding="utf-8")
    draft.replace(path)


def search_page(name: str, search: Search, walked: np.ndarray | None) -> str:
    """The page of a search: what the best point is worth, a heat map of two axes, and all points by rank."""
    best, point = search.table.row(search.best, named=True), search.points[search.best]
    said = ", ".join(f"{path}={value}" for path, value in point.items())
    told = [
        f"{len(search.points):,} points. Best before {search.split}: {said}.",
        f"Its Sharpe ratio a session is {best['in_sample']:.4f} before {search.split} and {best['out_of_sample']:.4f} "
        "from then on, which the choice has not seen.",
    ]
    if search.overfitting is not None:
        told.append(
            f"Probability of backtest overfitting: {search.overfitting.probability:.0%}. It is how often the best "
            "point of one half of the sessions is below the middle in the other half; above 50 % the choice is noise."
        )
    if walked is not None and len(walked):
        told.append(
            f"Choosing anew as time went on, from the sessions before, made {float(np.prod(1 + walked) - 1):.2%} in "
            f"{len(walked):,} sessions."
        )
    parts = [f"<h1>{escape(name)}: search</h1>", *(f"<p>{escape(one)}</p>" for one in told)]
    axes = [path for path in point if len({one[path] for one in search.points}) > 1]
    if len(axes) == 2:
        parts.append("<h2>Heat map</h2>" + _picture(_heat_map(search, axes[0], axes[1]), "heat map"))
    ranked = search.table.sort("in_sample", descending=True)
    rows = ([f"{one:.4f}" if isinstance(one, float) else one for one in row] for row in ranked.iter_rows())
    parts.append("<h2>All points</h2>" + _rows(ranked.columns, rows))
    return _page(f"{name}: search", parts)


def _heat_map(search: Search, across: str, down: str) -> bytes:
    """Sharpe ratios a session of two axes' values, before and after the choice, in one scale of colours."""
    columns, rows = ([*dict.fromkeys(point[path] for point in search.points)] for path in (across, down))
    figure = new_figure(10, 1.4 + 0.34 * max(3, len(rows)))
    both = [search.table[name].to_numpy() for name in ("in_sample", "out_of_sample")]
    far = max(1e-9, float(np.abs(np.concatenate(both)).max()))
    for axes, name, values in zip(figure.subplots(1, 2), ("in sample", "out of sample"), both, strict=True):
        image = np.full((len(rows), len(columns)), np.nan)
        for point, value in zip(search.points, values, strict=True):
            image[rows.index(point[down]), columns.index(point[across])] = value
        shown_image = axes.imshow(image, aspect="auto", cmap="RdBu", vmin=-far, vmax=far)
        tidy(axes, down, grid=False)
        step = max(1, len(columns) // 8)
        axes.set_xticks(range(0, len(columns), step), [str(one) for one in columns[::step]], fontsize=8)
        axes.set_yticks(range(len(rows)), [str(one) for one in rows], fontsize=8)
        axes.set_xlabel(across, fontsize=9)
        title(axes, name)
    figure.colorbar(shown_image, ax=axes, pad=0.02).ax.tick_params(labelsize=8)
    return to_png(figure)


def _page(name: str, parts: Sequence[str]) -> str:
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
    head += f"<title>{escape(name)}</title>"
    return f'<!DOCTYPE html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>'


def _figures(result: Account) -> str:
    rows = [
        (
            name,
            shown(name, value),
            shown(name, result.held_statistics[name]) if name in result.held_statistics else "",
            FIGURES[name].meaning if name in FIGURES else "",
        )
        for name, value in result.statistics.items()
        if name in FIGURES
    ]
    return _rows(["figure", result.strategy, "buy and hold", "meaning"], rows, "words")


def _forecasts(forecasts: Mapping[str, float]) -> str:
    """How good the model's predictions were out of sample, beside naive ones."""
    names = [name for name in forecasts if not name.startswith(_NAIVE)]
    rows = [
        (name, shown(name, forecasts[name]), *(_naive(forecasts, f"{one}{name}") for one in _NAIVE)) for name in names
    ]
    return _rows(["", "model", *(one.rstrip("_").replace("_", " ") for one in _NAIVE)], rows)


def _naive(forecasts: Mapping[str, float], name: str) -> str:
    return shown(name, forecasts[name]) if name in forecasts else ""


def _invested(curve: pl.DataFrame) -> bytes:
    """Money in positions and cash as shares of the equity, percent."""
    figure = new_figure(10, 3.0)
    axes = figure.add_subplot()
    at, money = curve["session"].to_numpy(), curve["equity"].to_numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        gross, cash = curve["gross"].to_numpy() / money * 100, curve["cash"].to_numpy() / money * 100
    axes.fill_between(at, gross, 0, color=SKY, alpha=0.5, linewidth=0, label="in positions")
    axes.plot(at, cash, color=GREY, linewidth=1.0, label="cash")
    tidy(axes, "percent of equity")
    legend(axes)
    return to_png(figure)


def _resampled(result: Account) -> str:
    """The fan of resampled sessions, and what resampled round trips come to."""
    if len(result.returns) < 2:
        return "<p>Too few sessions.</p>"
    paths = resampled_returns(result.returns, result.capital, _PATHS, _SEED)
    figure = new_figure(10, 3.4)
    axes = figure.add_subplot()
    steps = paths.fan["step"].to_numpy()
    bands = [name for name in paths.fan.columns if name != "step"]
    for low, high, strength in zip(bands, reversed(bands), (0.25, 0.4, 0.6), strict=False):
        if low < high:
            lower, upper = paths.fan[low].to_numpy(), paths.fan[high].to_numpy()
            axes.fill_between(steps, lower, upper, color=SKY, alpha=strength, linewidth=0)
    axes.plot(steps[1:], result.curve["equity"].to_numpy(), color=BLUE, linewidth=1.2, label="as it was")
    if "q50" in bands:
        axes.plot(steps, paths.fan["q50"].to_numpy(), color=GREEN, linewidth=1.0, label="middle path")
    tidy(axes, "equity")
    axes.yaxis.set_major_formatter(lambda value, _position: f"{value:,.0f}")
    axes.set_xlabel("sessions", fontsize=9)
    legend(axes)
    title(axes, f"{_PATHS:,} paths of the same sessions in blocks, drawn anew")
    told = [f"{paths.probability_of_loss():.0%} of these paths lost money."]
    if len(result.round_trips) > 1:
        trades = resampled_trades(result.round_trips["pnl"], result.capital, _PATHS, _SEED)
        worst = float(np.quantile(trades.drawdowns, 0.05))
        told.append(
            f"With its round trips in another order, one path in twenty fell by {abs(worst):.1%} or more on the way."
        )
    return _picture(to_png(figure), "fan chart") + "".join(f"<p>{one}</p>" for one in told)


def _months(result: Account) -> str:
    table = monthly_returns(result.returns, result.curve["session"].to_list())
    rows = [
        (row["year"], *("" if row[name] is None else f"{row[name] * 100:.1f}" for name in (*MONTHS, "total")))
        for row in table.iter_rows(named=True)
    ]
    return _rows(["year", *MONTHS, "total"], rows)


def _symbols(trips: pl.DataFrame) -> str:
    by_symbol = (
        trips.group_by("symbol")
        .agg(pl.len().alias("trips"), (pl.col("pnl") > 0).mean().alias("won"), pl.col("pnl", "costs").sum())
        .sort("pnl", descending=True)
    )
    rows = [
        (name, count, f"{won:.0%}", f"{pnl:,.0f}", f"{costs:,.0f}") for name, count, won, pnl, costs in by_symbol.rows()
    ]
    return _rows(["symbol", "round trips", "won", "profit", "costs"], rows)


def _at_broker(orders: pl.DataFrame) -> str:
    """What the broker's fills cost beside the simulated ones of the same orders, and the worst of them."""
    filled = orders.filter(pl.col("filled") > 0)
    both = filled.filter(pl.col("slippage").is_not_null())
    worst = both.sort("slippage_bps", descending=True).head(_WORST)
    mean, total = both["slippage_bps"].mean(), both["slippage"].sum()
    paid, simulated = filled["commission"].sum(), filled["simulated_commission"].sum()
    summary = [
        ("orders", f"{len(orders):,}"),
        ("filled, all or in part", f"{len(filled):,}"),
        ("filled in the simulation as well", f"{len(both):,}"),
        ("mean slippage against the simulation, bps", "" if mean is None else f"{mean:.2f}"),
        ("slippage against the simulation", f"{total:,.2f}"),
        ("commission", f"{paid:,.2f}"),
        ("commission in the simulation", f"{simulated:,.2f}"),
    ]
    rows = [
        (
            f"{one['decision_time']:%Y-%m-%d %H:%M}", one["symbol"], one["side"], f"{one['filled']:g}",
            f"{one['price']:.4f}", f"{one['simulated_price']:.4f}", f"{one['slippage_bps']:.2f}",
        )
        for one in worst.iter_rows(named=True)
    ]  # fmt: skip
    head = ["decided (UTC)", "symbol", "side", "filled", "price", "simulated", "slippage, bps"]
    return _rows(["", ""], summary, "words") + (f"<p>The worst:</p>{_rows(head, rows)}" if rows else "")


def _drawdowns(curve: pl.DataFrame) -> str:
    found = drawdowns(curve["equity"], curve["session"].to_list()).head(_WORST)
    rows = [
        (f"{one['depth']:.1%}", one["peak"], one["trough"], one["recovered"] or "not yet", one["sessions_down"])
        for one in found.iter_rows(named=True)
    ]
    return _rows(["depth", "from", "lowest", "recovered", "sessions down"], rows)


def _trips(trips: pl.DataFrame) -> str:
    if trips.is_empty():
        return "<p>None was closed.</p>"
    won, lost = trips.filter(pl.col("pnl") > 0), trips.filter(pl.col("pnl") <= 0)
    rows: list[tuple[Any, ...]] = [
        ("round trips", len(trips), len(won), len(lost)),
        ("mean profit", *(f"{one['pnl'].mean() or 0.0:,.0f}" for one in (trips, won, lost))),
        ("mean bars held", *(f"{one['bars'].mean() or 0.0:,.1f}" for one in (trips, won, lost))),
        ("mean of the worst close on the way (MAE)", *(_percent(one["mae"].mean()) for one in (trips, won, lost))),
        ("mean of the best close on the way (MFE)", *(_percent(one["mfe"].mean()) for one in (trips, won, lost))),
    ]
    return _rows(["", "all", "won", "lost"], rows)


def _percent(value: Any) -> str:
    return "" if value is None else f"{value:.2%}"


def _picture(png: bytes, what: str) -> str:
    return f'<img alt="{escape(what)}" src="data:image/png;base64,{b64encode(png).decode()}">'


def _rows(head: Sequence[str], rows: Iterable[Sequence[Any]], kind: str = "") -> str:
    top = "".join(f"<th>{escape(str(one))}</th>" for one in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(one))}</td>" for one in row) + "</tr>" for row in rows)
    return f'<table class="{kind}"><tr>{top}</tr>{body}</table>'
