"""Quantlytic: free market data to an honest paper-trade record, as one Dagster asset graph.

`open` gives what is stored to Python, and `backtest` trades a strategy on it; everything else is the `quantlytic`
command.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date
    from pathlib import Path
    from typing import Any, Literal

    from quantlytic_assets.reader import Reader
    from quantlytic_assets.services.backtest import Backtest

__all__ = ["backtest", "open"]


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
    """Trade a strategy with a rule on the bars of its dataset, with the engine that trades it.

    `start` and `end` are sessions, both included; default all there are. `set` has other values by their path in the
    universe file. The result has `statistics`, `curve`, `events`, `orders`, `fills`, `round_trips`, `findings` and
    `report(path)`. It is kept as a row of trading.backtests, for each one tried counts. The installation is that of
    `QUANTLYTIC_HOME` and `QUANTLYTIC_UNIVERSE`.

    Raises `UsageError` for a strategy, setting or day that there is not, and `BacktestError` where there are no bars.

    >>> import quantlytic_assets as ql
    >>> result = ql.backtest("cross_1d", start="2012-01-01", set={"rule.ma_cross.fast": 10})  # doctest: +SKIP
    >>> result.statistics["sharpe"]  # doctest: +SKIP
    """
    from quantlytic_assets.commands.backtest import made_backtest

    return made_backtest(strategy, start, end, dict(set or {}))
