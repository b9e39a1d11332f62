"""The inputs of features as arrays: columns of bars, on a scale that splits leave alone.

Prices are multiplied by `shares`, how many shares one share of the company's beginning has become, and volume is
divided by it. `time` is when a bar opens, in seconds since 1970; `session` is a number that changes with the session.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime

import numpy as np
import polars as pl

PRICES = ("open", "high", "low", "close", "vwap")
# In this order the usual inputs of a feature lie side by side, and need no copy.
ORDER = ("open", "high", "low", "close", "volume", "vwap", "session", "time")
DAY = 86_400
EPOCH = date(1970, 1, 1)


class Fields:
    """The arrays of some bars: one row an input, NaN where a bar lacks it.

    They are copies: polars gives read-only arrays, for which every kernel would be compiled a second time.
    """

    def __init__(self, bars: pl.DataFrame, names: Sequence[str]):
        missing = [one for name in names for one in _columns(name) if one not in bars.columns]
        if missing:
            raise ValueError(f"The bars lack {', '.join(dict.fromkeys(missing))}, which a declared feature reads")
        shares = numbers(bars["shares"]).copy() if "shares" in bars.columns else None
        # Most symbols never split, and what is multiplied by one stays as it is.
        self.shares = None if shares is None or (shares == 1.0).all() else shares
        self.names = sorted(names, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
        self._values = np.empty((len(names), len(bars)))
        for row, name in enumerate(self.names):
            self._values[row] = self._read(bars, name)
        self._holes = {name: bool(np.isnan(row).any()) for name, row in zip(self.names, self._values, strict=True)}

    def rows(self, inputs: Sequence[str]) -> np.ndarray:
        """The arrays of these inputs, one below the other."""
        places = [self.names.index(name) for name in inputs]
        if places == list(range(places[0], places[0] + len(places))):
            return self._values[places[0] : places[0] + len(places)]
        return self._values[places]

    def usable(self, inputs: Sequence[str]) -> np.ndarray | None:
        """True for the bars that have all of these inputs; None where all bars do."""
        if not any(self._holes[name] for name in inputs):
            return None
        return ~np.isnan(self.rows(inputs)).any(axis=0)

    def _read(self, bars: pl.DataFrame, name: str) -> np.ndarray:
        if name == "time":
            return bars["open_time"].dt.epoch("us").to_numpy() / 1e6
        if name == "session":
            if "session" in bars.columns:
                return bars["session"].cast(pl.Date).to_physical().to_numpy().astype(np.float64)
            return bars["open_time"].dt.epoch("s").to_numpy() // DAY
        if name == "vwap" and "vwap" not in bars.columns:
            values = np.full(len(bars), np.nan)
        else:
            values = numbers(bars[name])
        if self.shares is not None:
            if name in PRICES:
                values = values * self.shares
            elif name == "volume":
                values = values / self.shares
        if name == "vwap":
            high, low, close = (self._read(bars, one) for one in ("high", "low", "close"))
            values = np.where(np.isnan(values), (high + low + close) / 3.0, values)
        return values


def numbers(series: pl.Series) -> np.ndarray:
    """A column as floats, NaN where it is null."""
    return series.cast(pl.Float64).to_numpy()


def of_bar(bar: Mapping[str, object], name: str, shares: float) -> float:
    """One input of one bar, as `Fields` would have it; NaN where the bar lacks it."""
    if name == "time":
        return _opened(bar).timestamp()
    if name == "session":
        session = bar.get("session")
        return float((session - EPOCH).days if isinstance(session, date) else _opened(bar).timestamp() // DAY)
    given = bar.get(name)
    if given is None:
        if name == "vwap":
            return (of_bar(bar, "high", shares) + of_bar(bar, "low", shares) + of_bar(bar, "close", shares)) / 3.0
        return np.nan
    value = float(given)  # type: ignore[arg-type]
    if shares != 1.0:
        if name in PRICES:
            return value * shares
        if name == "volume":
            return value / shares
    return value


def _opened(bar: Mapping[str, object]) -> datetime:
    opened = bar.get("open_time")
    if not isinstance(opened, datetime) or opened.tzinfo is None:
        raise ValueError(f"open_time of a bar is a time with its zone, not {opened!r}")
    return opened


def _columns(name: str) -> tuple[str, ...]:
    """The columns of bars that an input is made of."""
    if name in ("time", "session"):
        return ("open_time",)
    return ("high", "low", "close") if name == "vwap" else (name,)
