"""What a simulated account came to in figures, beside buying and holding, and beside its own targets at other times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np
import polars as pl

from quantlytic_assets.trading.backtest.simulation import Simulation
from quantlytic_assets.trading.engine.settings import Costs, EngineSettings
from quantlytic_assets.trading.overfitting import deflated_sharpe_of
from quantlytic_assets.trading.statistics import account, benchmark, ratios, returns, risk

Figures = dict[str, float | None]
# In the order in which they are shown. The last ones need a benchmark.
NAMES = (
    "total_return", "cagr", "volatility", "sharpe", "sortino", "calmar", "max_drawdown", "var_95", "cvar_95",
    "round_trips", "win_rate", "profit_factor", "expectancy", "turnover", "exposure", "time_in_market", "total_costs",
    "alpha", "beta",
)  # fmt: skip


def figures(
    curve: pl.DataFrame,
    fills: pl.DataFrame,
    trips: pl.DataFrame,
    capital: float,
    periods: int,
    market_returns: np.ndarray | None = None,
) -> Figures:
    """The figures of an account (`NAMES`), as fractions unless said otherwise; None where one is not defined.

    curve: session, equity, cash, gross at the end of each session. fills: session, quantity, price, commission,
    slippage. trips: `pnl` of each round trip. periods: sessions a year. market_returns: those of the benchmark in the
    same sessions. sharpe and its kin are a year's, without a risk-free rate.
    """
    money = np.concatenate([[capital], curve["equity"].to_numpy()])
    found: dict[str, float] = {"total_return": float(money[-1] / capital - 1)}
    if money.min() > 0:
        earned = session_returns(curve, capital)
        found |= {
            "cagr": float(returns.annual_return(earned, periods)),
            "volatility": float(risk.annual_volatility(earned, periods)),
            "sharpe": float(ratios.sharpe_ratio(earned, periods=periods)),
            "sortino": float(ratios.sortino_ratio(earned, periods=periods)),
            "calmar": float(ratios.calmar_ratio(earned, periods)),
            "max_drawdown": float(risk.max_drawdown(earned)),
            "var_95": float(risk.value_at_risk(earned)),
            "cvar_95": float(risk.conditional_value_at_risk(earned)),
        }
        if market_returns is not None and len(market_returns) == len(earned):
            alpha, beta = benchmark.alpha_beta(earned, market_returns, periods=periods)
            found |= {"alpha": float(alpha), "beta": float(beta)}
    traded = fills.group_by("session").agg((pl.col("price") * pl.col("quantity")).sum().alias("notional"))
    notional = curve.join(traded, on="session", how="left", maintain_order="left")["notional"].fill_null(0.0)
    found |= {
        "round_trips": len(trips),
        "win_rate": account.win_rate(trips["pnl"]),
        "profit_factor": account.profit_factor(trips["pnl"]),
        "expectancy": account.expectancy(trips["pnl"]),
        "turnover": account.turnover(notional, curve["equity"], periods),
        "exposure": account.exposure(curve["gross"], curve["equity"]),
        "time_in_market": account.time_in_market(curve["gross"]),
        "total_costs": float(fills["commission"].sum() + fills["slippage"].sum()),
    }
    return {name: value if math.isfinite(value := found.get(name, math.nan)) else None for name in NAMES}


def side_by_side(own: Figures, held: Figures) -> pl.DataFrame:
    """Figures of an account and of buying and holding: statistic, strategy, buy_and_hold, in the order of `NAMES`."""
    return pl.DataFrame(
        {
            "statistic": NAMES,
            "strategy": [own.get(name) for name in NAMES],
            "buy_and_hold": [held.get(name) for name in NAMES],
        },
        schema={"statistic": pl.String, "strategy": pl.Float64, "buy_and_hold": pl.Float64},
        strict=False,
    )


def periods_per_year(sessions: pl.Series) -> int:
    """365 for sessions that include Saturdays and Sundays, else 252: how many sessions make a year."""
    return 365 if {6, 7} <= set(sessions.dt.weekday()) else 252


def session_returns(curve: pl.DataFrame, capital: float) -> np.ndarray:
    """The account's simple return of each session, the first one against the capital it began with."""
    return returns.simple_returns(np.concatenate([[capital], curve["equity"].to_numpy()]))


def session_sharpes(earned: np.ndarray) -> np.ndarray:
    """Sharpe ratios a session of returns [session] or [session, point]; 0 where nothing spreads: without a trade."""
    nothing = np.zeros(earned.shape[1:])
    if len(earned) < 2:
        return nothing
    spread = earned.std(axis=0, ddof=1)
    return np.divide(earned.mean(axis=0), spread, out=nothing, where=spread > 0)


def confidence(earned: np.ndarray, trials: Sequence[float]) -> Figures:
    """How sure one can be of a Sharpe ratio above zero: `psr`, and `deflated_sharpe` for all `trials`.

    earned: returns a session. trials: the Sharpe ratios a session of everything that was tried, this one among them.
    """
    tried = float(len(trials))
    if len(earned) < 2 or not earned.std(ddof=1):
        return {"psr": None, "deflated_sharpe": None, "trials": tried}
    # One trial has nothing to choose from: its deflated ratio is the probabilistic one.
    sure, deflated = deflated_sharpe_of(earned, trials[:1]), deflated_sharpe_of(earned, trials)
    return {"psr": sure, "deflated_sharpe": deflated, "trials": tried}


def with_costs_doubled(settings: EngineSettings) -> EngineSettings:
    """The same account with each of its costs twice as high."""
    doubled = {
        one.name: value * 2
        for one in fields(Costs)
        if (value := getattr(settings.costs, one.name)) is not None and one.name != "maximum_bps"
    }
    return replace(settings, costs=replace(settings.costs, **doubled))


def moved_in_time(made: Simulation, runs: int, seed: int) -> np.ndarray:
    """The total returns of the same targets, moved by a random time each: as much trading, without the timing.

    What falls off the end comes in at the beginning, so that turnover and exposure stay. Empty without targets.
    """
    if made.targets is None:
        return np.empty(0)
    targets, random = made.targets, np.random.default_rng(seed)
    # Far enough from where they were for the timing to be another one.
    least = max(1, len(targets) // 20)
    shifts = random.integers(least, max(least + 1, len(targets) - least), runs)
    return np.array([made.again(np.roll(targets, int(shift), axis=0)) for shift in shifts])
