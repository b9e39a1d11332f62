"""How the figures of an account and of forecasts are written for people, and what each of them means.

They are computed in `backtest.figures` and `learning.evaluation`, as fractions; nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One figure: a format for its value, and its meaning in a few words."""

    form: str
    meaning: str


_PERCENT, _RATIO, _COUNT = "{:.2%}", "{:.2f}", "{:,.0f}"

FIGURES: dict[str, Figure] = {
    "total_return": Figure(_PERCENT, "gain on the capital at the start"),
    "cagr": Figure(_PERCENT, "the same for a year, compounded"),
    "sharpe": Figure(_RATIO, "mean over deviation of returns, for a year, no risk-free rate"),
    "sortino": Figure(_RATIO, "the same over the deviation of losses alone"),
    "max_drawdown": Figure(_PERCENT, "deepest fall below an earlier high"),
    "volatility": Figure(_PERCENT, "deviation of returns, for a year"),
    "calmar": Figure(_RATIO, "cagr over the deepest fall"),
    "var_95": Figure(_PERCENT, "return of a session that one in twenty is below"),
    "cvar_95": Figure(_PERCENT, "mean return of those"),
    "round_trips": Figure(_COUNT, "positions that were opened and closed"),
    "win_rate": Figure(_PERCENT, "round trips that made money"),
    "profit_factor": Figure(_RATIO, "what winning round trips made over what losing ones lost"),
    "expectancy": Figure(_COUNT, "mean profit of a round trip, in money"),
    "exposure": Figure(_PERCENT, "mean share of the equity in positions"),
    "time_in_market": Figure(_PERCENT, "sessions that ended with a position"),
    "alpha": Figure(_PERCENT, "return of a year beyond what beta explains"),
    "beta": Figure(_RATIO, "slope of the returns on those of buying and holding"),
    "psr": Figure(_PERCENT, "probability that the Sharpe ratio is above zero"),
    "deflated_sharpe": Figure(_PERCENT, "the same, for all trials on record"),
    "trials": Figure(_COUNT, "backtests of the strategy on record, this one included"),
    "turnover": Figure("{:.1f}x", "half of all that was traded over the capital, for a year"),
    "total_costs": Figure(_COUNT, "commissions and slippage, in money"),
    "trades": Figure(_COUNT, "fills"),
    "accuracy": Figure(_PERCENT, "forecasts that were right"),
    "precision": Figure(_PERCENT, "rises among those forecast"),
    "recall": Figure(_PERCENT, "rises that were forecast"),
    "ic": Figure("{:.4f}", "rank correlation of score and return"),
    "outcomes": Figure(_COUNT, "forecasts whose outcome is known"),
    "persistence": Figure("", "forecasts that the last bar's direction goes on"),
    "always_up": Figure("", "forecasts a rise each time"),
}


def shown(name: str, value: float | None) -> str:
    """A figure's value as people read it; `persistence_accuracy` and its like are written as `accuracy`."""
    if value is None:
        return "undefined"
    figure = FIGURES.get(name) or FIGURES.get(name.rpartition("_")[2])
    return figure.form.format(value) if figure else f"{value:,.4f}"


def legend(names: Iterable[str]) -> str:
    """What the named figures mean, each once, in one line; a forecast that figures are named after is one of them."""
    parts = dict.fromkeys(
        part
        for name in names
        for part in ((name,) if name in FIGURES else (name.rpartition("_")[2], name.rpartition("_")[0]))
        if part in FIGURES
    )
    return "; ".join(f"{part}: {FIGURES[part].meaning}" for part in sorted(parts, key=list(FIGURES).index))
