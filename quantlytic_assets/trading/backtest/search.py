"""A grid of settings tried on one history, and what is left of the best when one has not seen the future."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from quantlytic_assets.trading.backtest.changes import Declared, changed
from quantlytic_assets.trading.backtest.figures import session_returns, session_sharpes
from quantlytic_assets.trading.backtest.history import History, PreparedHistory
from quantlytic_assets.trading.backtest.simulation import simulate
from quantlytic_assets.trading.engine.market import Market
from quantlytic_assets.trading.engine.settings import EngineSettings
from quantlytic_assets.trading.overfitting import Overfitting, backtest_overfitting

# The share of the sessions that the choice is made on; the rest shows what the choice is worth.
IN_SAMPLE = 0.7
_FEWEST = 32


@dataclass(frozen=True)
class Search:
    """All points of a grid: what each is, its returns [session, point], and where the choice ends.

    table: the changes of each point and total_return, sharpe (a session's, all sessions), in_sample and out_of_sample
    (Sharpe ratios a session before and from `split` on), in the order of the points. best: the point with the highest
    in_sample. overfitting: None where there are too few sessions or points.
    """

    points: list[Mapping[str, Any]]
    table: pl.DataFrame
    returns: np.ndarray
    sessions: list[date]
    split: date
    best: int
    overfitting: Overfitting | None


def trial(
    history: History | PreparedHistory,
    market: Market,
    bind: Callable[[Declared], Any],
    rule: Declared,
    settings: EngineSettings,
    symbols: Sequence[str],
    changes: Mapping[str, Any],
    first: date | None,
    last: date | None,
) -> tuple[list[date], np.ndarray]:
    """The sessions and the account's returns of one point.

    market: that of the history, made once for all points. bind: makes what a rule's declaration means.
    """
    declared, own = changed(rule, settings, changes)
    made = simulate(history, bind(declared), own, symbols, market=market, first=first, last=last, events=False)
    curve = made.sessions()
    return curve["session"].to_list(), session_returns(curve, own.capital)


def cut_of(sessions: int) -> int:
    """How many of the sessions the choice is made on. Raises `ValueError` for fewer than two."""
    if sessions < 2:
        raise ValueError("a search needs at least two sessions")
    return min(sessions - 1, max(1, int(sessions * IN_SAMPLE)))


def searched(points: Sequence[Mapping[str, Any]], sessions: list[date], returns: np.ndarray) -> Search:
    """What the returns [session, point] of all points say. Raises `ValueError` for fewer than two sessions."""
    cut = cut_of(len(sessions))
    inside, outside = session_sharpes(returns[:cut]), session_sharpes(returns[cut:])
    table = pl.DataFrame([{name: _shown(value) for name, value in point.items()} for point in points]).with_columns(
        pl.Series("total_return", np.prod(1 + returns, axis=0) - 1),
        pl.Series("sharpe", session_sharpes(returns)),
        pl.Series("in_sample", inside),
        pl.Series("out_of_sample", outside),
    )
    enough = returns.shape[1] > 1 and len(sessions) >= max(_FEWEST, returns.shape[1])
    return Search(
        points=list(points),
        table=table,
        returns=returns,
        sessions=sessions,
        split=sessions[cut],
        best=int(np.argmax(inside)),
        overfitting=backtest_overfitting(returns) if enough else None,
    )


def walked_forward(search: Search, windows: int = 8) -> np.ndarray:
    """The returns of choosing anew before each of `windows` stretches, by what all sessions before it said.

    The first stretch only teaches. Array [session] of the sessions from the second stretch on.
    """
    edges = np.linspace(0, len(search.sessions), windows + 1).astype(int)
    parts = [
        search.returns[start:stop, int(np.argmax(session_sharpes(search.returns[:start])))]
        for start, stop in pairwise(edges[1:].tolist())
        if stop > start > 1
    ]
    return np.concatenate(parts) if parts else np.empty(0)


def _shown(value: Any) -> Any:
    return value if isinstance(value, int | float | str | bool) or value is None else str(value)
