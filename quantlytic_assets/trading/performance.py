"""How a strategy did, beside buying the same symbols once and holding them: figures, a chart and a report.

Statistics are those of quantstats, on the account's returns from session to session. Holdings and equity come from
`portfolio`; how good predictions were is `learning.evaluation`.
"""

from __future__ import annotations

import io
import logging
import math
import tempfile
import warnings
from base64 import b64encode
from collections.abc import Sequence
from datetime import date, datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from quantlytic_assets.trading.costs import with_costs
from quantlytic_assets.trading.entitlements import Entitlements
from quantlytic_assets.trading.figures import shown
from quantlytic_assets.trading.ledger import FILLS_SCHEMA, order_ref
from quantlytic_assets.trading.portfolio import equity_curve, positions
from quantlytic_assets.trading.simulated_broker import next_bars

if TYPE_CHECKING:
    import pandas as pd

    from quantlytic_assets.universe.models import Strategy

BENCHMARK = "buy_and_hold"
STATISTICS: tuple[str, ...] = (
    "total_return",
    "cagr",
    "sharpe",
    "sortino",
    "max_drawdown",
    "turnover",
    "total_costs",
    "trades",
)
# The tearsheet's rolling and monthly parts need some history to be drawn at all.
_SESSIONS_FOR_TEARSHEET = 60

Statistics = dict[str, float | None]


def periods_per_year(sessions: Sequence[date] | pl.Series) -> int:
    """365 for sessions that include Saturdays and Sundays, else 252: how many sessions make a year."""
    weekdays = set(pl.Series(sessions, dtype=pl.Date).dt.weekday())
    return 365 if {6, 7} <= weekdays else 252


def benchmark_fills(strategy: Strategy, bars: pl.DataFrame, decided_at: datetime) -> pl.DataFrame:
    """Buy and hold as fills (ledger.FILLS_SCHEMA), strategy named `buy_and_hold`.

    Each of the strategy's symbols is bought once, at its first bar with open_time >= decided_at (the strategy's own
    first decision, UTC), at the strategy's costs, for at most capital / number of symbols, commission included, in
    whole units. bars: symbol, session, open_time, open. A symbol that one unit is too dear for, or that has no bar, is
    not bought.
    """
    wishes = pl.DataFrame({"symbol": list(strategy.symbols)}).with_columns(
        pl.lit(decided_at, pl.Datetime("us", "UTC")).alias("decision_time"),
        pl.lit(BENCHMARK).alias("strategy"),
        pl.lit("buy").alias("side"),
        pl.lit(1.0).alias("quantity"),
        pl.lit(decided_at.date()).alias("session"),
    )
    per_unit = with_costs(next_bars(wishes, bars), strategy.costs)
    share = strategy.capital / len(strategy.symbols)
    sized = per_unit.with_columns((share / (pl.col("price") + pl.col("commission"))).floor().alias("quantity"))
    bought = with_costs(sized.filter(pl.col("quantity") > 0), strategy.costs)
    return bought.with_columns(order_ref().alias("order_ref")).select(FILLS_SCHEMA.names())


def benchmark_curve(
    strategy: Strategy,
    bars: pl.DataFrame,
    decided_at: datetime,
    sessions: Sequence[date] | pl.Series,
    entitlements: Entitlements | None = None,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(equity curve, fills) of buy and hold over the same sessions; see `benchmark_fills` and
    `portfolio.equity_curve`.
    """
    fills = benchmark_fills(strategy, bars, decided_at)
    held = positions(BENCHMARK, fills, bars, sessions, entitlements)
    return equity_curve(held, fills, strategy.capital, sessions, entitlements), fills


def session_returns(curve: pl.DataFrame, capital: float) -> pl.DataFrame:
    """session, return: the account's simple return per session, the first one against the capital it began with."""
    equity = pl.col("equity")
    return curve.select("session", (equity / equity.shift(1, fill_value=capital) - 1).alias("return"))


def statistics(curve: pl.DataFrame, fills: pl.DataFrame, capital: float, periods: int) -> Statistics:
    """The `STATISTICS` of an account, as fractions unless said otherwise; None where a figure is not defined.

    curve: portfolio.EQUITY_SCHEMA. fills: ledger.FILLS_SCHEMA. periods: sessions a year (`periods_per_year`). sharpe
    and sortino are annualised, without a risk-free rate; max_drawdown is not positive; turnover is one-way and yearly:
    half of all notional traded / capital / years; total_costs is money: commissions and slippage; trades counts fills.
    An account that falls to 0 or below has no rates of return: cagr, sharpe, sortino and max_drawdown are None.
    """
    import_quantstats()
    import quantstats.stats as qs

    if curve.is_empty():
        return dict.fromkeys(STATISTICS)
    notional = float((fills["price"] * fills["quantity"]).sum())
    figures: Statistics = dict.fromkeys(STATISTICS)
    figures["total_return"] = float(curve["equity"][-1]) / capital - 1
    figures["turnover"] = notional / 2 / capital / (len(curve) / periods)
    figures["total_costs"] = float(fills["commission"].sum() + fills["slippage"].sum())
    figures["trades"] = len(fills)
    if curve["equity"].min() <= 0:
        return figures
    returns = _as_pandas(session_returns(curve, capital))
    with warnings.catch_warnings():
        # A constant or one-row series divides by a spread of zero; the result is reported as None.
        warnings.simplefilter("ignore", RuntimeWarning)
        figures["cagr"] = _finite(qs.cagr(returns, periods=periods))
        figures["sharpe"] = _finite(qs.sharpe(returns, periods=periods))
        figures["sortino"] = _finite(qs.sortino(returns, periods=periods))
        figures["max_drawdown"] = _finite(qs.max_drawdown(returns))
    return figures


def comparison(strategy: Statistics, benchmark: Statistics) -> pl.DataFrame:
    """Both accounts' figures side by side: statistic, strategy, buy_and_hold, in the order of `STATISTICS`."""
    return pl.DataFrame(
        {
            "statistic": STATISTICS,
            "strategy": [strategy[name] for name in STATISTICS],
            BENCHMARK: [benchmark[name] for name in STATISTICS],
        },
        schema={"statistic": pl.String, "strategy": pl.Float64, BENCHMARK: pl.Float64},
        strict=False,
    )


def equity_chart(curve: pl.DataFrame, benchmark: pl.DataFrame, title: str) -> bytes:
    """A PNG: equity of the strategy and of buy and hold above, their drawdowns below. Both are
    portfolio.EQUITY_SCHEMA.
    """
    # Not pyplot: its figures are global to the process and need closing.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    for frame, label, colour in ((curve, title, "#1f5fa8"), (benchmark, "buy and hold", "#9a9a9a")):
        sessions, equity = frame["session"].to_numpy(), frame["equity"]
        drawdown = (equity / equity.cum_max() - 1).to_numpy() * 100
        above.plot(sessions, equity.to_numpy(), label=label, color=colour, linewidth=1.3)
        below.fill_between(sessions, drawdown, 0, color=colour, alpha=0.35, linewidth=0)
    above.set_title(title)
    above.set_ylabel("equity")
    above.yaxis.set_major_formatter(lambda value, _position: f"{value:,.0f}")
    above.legend(loc="upper left", frameon=False)
    below.set_ylabel("drawdown, %")
    for axes in (above, below):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def write_report(
    path: str | Path, title: str, curve: pl.DataFrame, benchmark: pl.DataFrame, figures: pl.DataFrame, capital: float
) -> None:
    """Writes one self-contained HTML file that compares the strategy with buy and hold and needs no network to be
    read.

    curve, benchmark: portfolio.EQUITY_SCHEMA over the same sessions. figures: `comparison`. It is quantstats'
    tearsheet; with less than 60 sessions, with no trade or after a ruin there is nothing to draw one from, and the
    file holds the figures and the chart. It replaces an older file at once.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    drawable = [c["equity"].n_unique() > 1 and c["equity"].min() > 0 for c in (curve, benchmark)]
    if len(curve) >= _SESSIONS_FOR_TEARSHEET and all(drawable):
        page = _tearsheet(title, curve, benchmark, capital)
    else:
        page = _plain_page(title, curve, benchmark, figures)
    draft = path.with_name(path.name + ".part")
    draft.write_text(page, encoding="utf-8")
    draft.replace(path)


def _tearsheet(title: str, curve: pl.DataFrame, benchmark: pl.DataFrame, capital: float) -> str:
    import_quantstats()
    import quantstats.reports

    with tempfile.TemporaryDirectory(prefix="quantlytic-report-") as scratch, warnings.catch_warnings():
        # Its plots divide by empty months and ask for fonts that a server has not got.
        warnings.simplefilter("ignore")
        output = Path(scratch) / "tearsheet.html"
        quantstats.reports.html(
            _as_pandas(session_returns(curve, capital)),
            benchmark=_as_pandas(session_returns(benchmark, capital)),
            title=escape(title),
            output=str(output),
            periods_per_year=periods_per_year(curve["session"]),
            # Matching would cut off the time before the first trade and so show another return than ours.
            match_dates=False,
            strategy_title="Strategy",
            benchmark_title="Buy and hold",
        )
        page = output.read_text(encoding="utf-8")
    # The template fetches an icon from the network and calls a script it does not bring.
    page = "\n".join(line for line in page.splitlines() if 'rel="shortcut icon"' not in line)
    return page.replace('<body onload="save()">', "<body>")


def _plain_page(title: str, curve: pl.DataFrame, benchmark: pl.DataFrame, figures: pl.DataFrame) -> str:
    rows = "".join(
        f"<tr><td>{escape(name)}</td>" + "".join(f"<td>{shown(name, value)}</td>" for value in values) + "</tr>"
        for name, *values in figures.rows()
    )
    chart = ""
    if len(curve):
        encoded = b64encode(equity_chart(curve, benchmark, title)).decode()
        chart = f'<img alt="equity and drawdown" src="data:image/png;base64,{encoded}">'
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title><style>'
        "body{font:14px Arial,sans-serif;max-width:60em;margin:2em auto}td,th{padding:.2em 1em;text-align:right}"
        f"img{{width:100%}}</style></head><body><h1>{escape(title)}</h1>"
        f"<p>{len(curve)} sessions: too little has happened for a full report.</p><table><tr><th></th><th>Strategy</th>"
        f"<th>Buy and hold</th></tr>{rows}</table>{chart}</body></html>"
    )


def import_quantstats() -> None:
    """Loads quantstats without a display and without its notes about fonts."""
    import matplotlib

    matplotlib.use("Agg")
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    import quantstats  # noqa: F401


def _as_pandas(returns: pl.DataFrame) -> pd.Series:
    import pandas as pd

    index = pd.DatetimeIndex(returns["session"].to_numpy().astype("datetime64[ns]"), name="Date")
    return pd.Series(returns["return"].to_numpy(), index=index, name="return")


def _finite(value: float) -> float | None:
    value = float(value)
    return value if math.isfinite(value) else None
