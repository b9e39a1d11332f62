"""Quantlytic: free market data to an honest paper-trade record, as one Dagster asset graph.

`open` gives what is stored to Python, and `backtest` trades a strategy on it; everything else is the `quantlytic`
command.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date
    from pathlib import Path
    from typing import Any, Literal

    from quantlytic_assets.reader import Reader
    from quantlytic_assets.services.backtest import Backtest
    from quantlytic_assets.trading.backtest.search import Search

__all__ = ["backtest", "open", "optimize"]


def open(home: str | Path | None = None, frames: Literal["polars", "pandas"] = "polars") -> Reader:
    """Open an installation for reading: bars, features, predictions, trades and SQL as data frames.

    `home` is the data directory; default `QUANTLYTIC_HOME`, else `.quantlytic` beside the universe file. With
    `QUANTLYTIC_PROFILE=services` the lake is on the servers that the environment names. `frames` is `polars` or
    `pandas`; each method can be told otherwise.

    Nothing is written, nobody is asked over the network but those servers, and writers are not held up.
    Raises `ReadError` where there is no installation, `LayoutError` where an older or newer version made it.

    >>> import quantlytic_assets as ql
    >>> lake = ql.open()  # doctest: +SKIP
    >>> lake.bars("equities_1d", symbols=["AAPL"], start="2012-01-01", adjusted=True)  # doctest: +SKIP
    """
    from quantlytic_assets.reader import open_reader

    return open_reader(home, frames)


def backtest(
    strategy: str,
    *,
    start: str | date | None = None,
    end: str | date | None = None,
    set: Mapping[str, Any] | None = None,
) -> Backtest:
    """Trade a strategy on the bars of its dataset, with the engine that trades it on paper.

    `start` and `end` are sessions, both included; default all there are. `set` has other values by their path in the
    universe file. The result has `statistics`, `equity`, `trades`, `events`, `orders`, `fills`, `findings` and
    `report(path)`. It is kept as a row of trading.backtests, for each one tried counts. The installation is that of
    `QUANTLYTIC_HOME` and `QUANTLYTIC_UNIVERSE`.

    Raises `UsageError` for a strategy, setting or day that there is not, and `BacktestError` where there are no bars.

    >>> import quantlytic_assets as ql
    >>> result = ql.backtest("cross_1d", start="2012-01-01", set={"rule.ma_cross.fast": 10})  # doctest: +SKIP
    >>> result.statistics["sharpe"]  # doctest: +SKIP
    """
    from quantlytic_assets.commands.backtest import made_backtest

    return made_backtest(strategy, start, end, dict(set or {}))


def optimize(
    strategy: str,
    grid: Mapping[str, Sequence[Any]],
    *,
    trials: int | None = None,
    start: str | date | None = None,
    end: str | date | None = None,
    set: Mapping[str, Any] | None = None,
) -> Search:
    """Try the points of a grid, or `trials` of them that Optuna chooses, and say what the best one is worth.

    `grid` has values by their path in the universe file; the rest is as for `backtest`. The result has `table` (a row a
    point, with its Sharpe ratios a session before and from `split` on), `points`, `best` and `overfitting`. Each point
    is kept as a row of trading.backtests.

    Raises `UsageError` for a strategy or day that there is not, `ValueError` for a setting that there is not, and
    `BacktestError` where there are no bars.

    >>> import quantlytic_assets as ql
    >>> found = ql.optimize("cross_1d", {"rule.ma_cross.fast": range(5, 60, 5)}, trials=20)  # doctest: +SKIP
    >>> found.points[found.best]  # doctest: +SKIP
    """
    from quantlytic_assets.commands.backtest import made_search

    return made_search(strategy, grid, trials, start, end, dict(set or {}))
