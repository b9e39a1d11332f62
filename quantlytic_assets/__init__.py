"""Quantlytic: free market data to an honest paper-trade record, as one Dagster asset graph.

`open` gives what is stored to Python; everything else is the `quantlytic` command.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Literal

    from quantlytic_assets.reader import Reader

__all__ = ["open"]


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
