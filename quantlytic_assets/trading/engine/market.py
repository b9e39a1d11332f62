"""What the engine reads: bars of many symbols as arrays over time, with the corporate actions of their sessions.

A frame of bars is laid out once; a stretch of times is then a view of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime

import numpy as np
import polars as pl

from quantlytic_assets.trading.engine import codes as c

BARS_SCHEMA = pl.Schema(
    {
        "symbol": pl.String,
        "session": pl.Date,
        "open_time": pl.Datetime("us", "UTC"),
        "close_time": pl.Datetime("us", "UTC"),
        "available_at": pl.Datetime("us", "UTC"),
        "open": pl.Float64,
        "high": pl.Float64,
        "low": pl.Float64,
        "close": pl.Float64,
        "volume": pl.Float64,
    }
)
ACTIONS_SCHEMA = pl.Schema(
    {"symbol": pl.String, "session": pl.Date, "kind": pl.String, "value": pl.Float64, "into": pl.String}
)
_PRICES = ("open", "high", "low", "close", "volume")
_TIMES = ("open_time", "close_time", "available_at")


def micros(time: datetime) -> int:
    """A time as `Market.times` has it: microseconds since 1970, UTC."""
    return int(pl.Series([time]).cast(BARS_SCHEMA["open_time"]).to_physical()[0])


def day_number(day: date) -> int:
    """A session as `Market.times` has it: days since 1970."""
    return (day - date(1970, 1, 1)).days


@dataclass(frozen=True)
class Market:
    """Bars [time, field, symbol], oldest first, NaN where a symbol has none, and what is fixed for each symbol.

    times [time, field]: open, close, available, session (days since 1970), whether it is the session's last bar.
    actions: [session, kind, symbol, other symbol] and values, in the order in which they take effect.
    """

    symbols: tuple[str, ...]
    bars: np.ndarray
    times: np.ndarray
    static: np.ndarray
    actions: np.ndarray
    action_values: np.ndarray

    def __len__(self) -> int:
        return len(self.times)

    def __getitem__(self, stretch: slice) -> Market:
        """The times of a stretch, without copying; actions stay whole, for each has its session."""
        if stretch.step not in (None, 1):
            raise ValueError(f"step {stretch.step}: times follow each other one by one")
        return replace(self, bars=self.bars[stretch], times=self.times[stretch])

    def at(self, time: datetime) -> int:
        """The number of the first bar that opens at or after a time."""
        return int(np.searchsorted(self.times[:, c.OPENS], micros(time)))

    @property
    def sessions(self) -> pl.Series:
        """The session of each time."""
        return pl.Series(self.times[:, c.SESSION]).cast(pl.Int32).cast(pl.Date)

    def within(self, first: date | None, last: date | None) -> slice:
        """The times of the sessions `first` … `last`, both included; without one from the beginning, or to the end."""
        days = self.times[:, c.SESSION]
        start = 0 if first is None else int(np.searchsorted(days, day_number(first)))
        stop = len(self) if last is None else int(np.searchsorted(days, day_number(last), "right"))
        return slice(start, max(start, stop))

    def matrix(self, frame: pl.DataFrame, column: str) -> np.ndarray:
        """A column of a frame (symbol, open_time, …) laid out as [time, symbol]: targets, or an ATR. NaN elsewhere."""
        return self.laid(frame[column], self.places(frame))

    def laid(self, values: pl.Series, places: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
        """Values laid out as [time, symbol], NaN elsewhere; `places` are those of the frame that has them."""
        rows, columns, known = places
        laid = np.full((len(self), len(self.symbols)), np.nan)
        laid[rows[known], columns[known]] = values.cast(pl.Float64).fill_null(np.nan).to_numpy()[known]
        return laid

    def places(self, frame: pl.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each row of a frame (symbol, open_time) its time, its symbol, and whether the market has them."""
        opens = frame["open_time"].cast(BARS_SCHEMA["open_time"]).to_physical().to_numpy()
        rows = np.searchsorted(self.times[:, c.OPENS], opens)
        at = np.minimum(rows, max(len(self) - 1, 0))
        columns = frame["symbol"].replace_strict(
            {name: number for number, name in enumerate(self.symbols)}, default=-1, return_dtype=pl.Int64
        )
        known = (columns.to_numpy() >= 0) & (rows < len(self))
        if len(self):
            known &= self.times[at, c.OPENS] == opens
        return at, columns.to_numpy(), known

    @classmethod
    def from_frame(
        cls,
        bars: pl.DataFrame,
        symbols: Sequence[str] | None = None,
        *,
        actions: pl.DataFrame | None = None,
        lots: Mapping[str, float] | float = 1.0,
        ticks: Mapping[str, float] | float = 0.0,
        minimum_notional: Mapping[str, float] | float = 0.0,
        session_closes: Mapping[date, datetime] | None = None,
    ) -> Market:
        """The market of these bars (BARS_SCHEMA); one that is known to be wrong has null prices.

        symbols: which, in which order; default all, sorted. actions: ACTIONS_SCHEMA, kind `split` (value = new shares
        for one), `dividend` (cash for a share as it stands on that day), `rename` (`into` is the new symbol) or
        `delisting` (its session is the first without trading). lots: smallest change of a quantity; ticks: of a limit
        or stop price, 0 for none. session_closes: when each session ends, which tells its last bar; only where every
        session has one bar they can be left out.
        """
        missing = [name for name in BARS_SCHEMA.names() if name not in bars.columns]
        if missing:
            raise ValueError(f"bars: no column {', '.join(missing)}")
        names = tuple(bars["symbol"].unique().sort()) if symbols is None else tuple(symbols)
        if len(set(names)) != len(names):
            raise ValueError("symbols: each must be there once")
        bars = bars.filter(pl.col("symbol").is_in(names))
        when = (
            bars.group_by("open_time")
            # A cross-section can be used when its last row can.
            .agg(pl.col("close_time").max(), pl.col("available_at").max(), pl.col("session").min())
            .sort("open_time")
        )
        times = np.zeros((len(when), c.TIME_FIELDS), dtype=np.int64)
        for place, name in enumerate(_TIMES):
            times[:, place] = when[name].cast(BARS_SCHEMA[name]).to_physical().to_numpy()
        times[:, c.SESSION] = when["session"].to_physical().to_numpy()
        times[:, c.LAST_BAR] = _last_bars(times, session_closes)
        static = np.empty((c.STATIC_FIELDS, len(names)))
        for row, (label, given) in enumerate(
            (("lots", lots), ("ticks", ticks), ("minimum_notional", minimum_notional))
        ):
            fallback = 1.0 if row == c.LOT else 0.0
            static[row] = [given.get(name, fallback) if isinstance(given, Mapping) else given for name in names]
            if (
                not np.isfinite(static[row]).all()
                or (static[row] < 0).any()
                or (row == c.LOT and not static[row].all())
            ):
                raise ValueError(f"{label}: must be finite, and {'positive' if row == c.LOT else 'not negative'}")
        table, values = _actions(actions, names)
        market = cls(names, np.full((len(when), c.BAR_FIELDS, len(names)), np.nan), times, static, table, values)
        rows, columns, known = market.places(bars)
        if len(np.unique(rows[known] * len(names) + columns[known])) != known.sum():
            raise ValueError("bars: a symbol has two bars of one open_time")
        for place, name in enumerate(_PRICES):
            values = bars[name].cast(pl.Float64).fill_null(np.nan).to_numpy()
            market.bars[rows[known], place, columns[known]] = values[known]
        market._close_over_the_wrong()
        return market

    def _close_over_the_wrong(self) -> None:
        """A bar is all there or not at all: with a price that is missing, infinite or not positive it is none."""
        prices = self.bars[:, : c.VOLUME]
        # A loop over fields, so that no array of all of them is made.
        sound = np.ones(prices[:, 0].shape, dtype=bool)
        for place in range(c.VOLUME):
            sound &= np.isfinite(prices[:, place]) & (prices[:, place] > 0)
        sound &= (prices[:, c.HIGH] >= prices[:, c.LOW]) & (prices[:, c.CLOSE] > 0)
        for place in range(c.VOLUME):
            prices[:, place][~sound] = np.nan


def _last_bars(times: np.ndarray, closes: Mapping[date, datetime] | None) -> np.ndarray:
    sessions = times[:, c.SESSION]
    if closes is not None:
        # All at once: a time by itself takes a fifth of a millisecond, and there are as many as sessions.
        moments = pl.Series(list(closes.values())).cast(BARS_SCHEMA["close_time"]).to_physical().to_list()
        ends = dict(zip(map(day_number, closes), moments, strict=True))
        far = np.iinfo(np.int64).max
        return times[:, c.CLOSES] >= np.array([ends.get(int(one), far) for one in sessions], dtype=np.int64)
    if (sessions[1:] == sessions[:-1]).any():
        # From the bars alone it would depend on how many of them are there yet.
        raise ValueError("session_closes: are needed where a session has more than one bar")
    return np.ones(len(sessions), dtype=bool)


def _actions(actions: pl.DataFrame | None, names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    if actions is None or actions.is_empty():
        return np.zeros((0, 4), dtype=np.int64), np.zeros(0)
    if "into" not in actions.columns:
        actions = actions.with_columns(pl.lit(None, pl.String).alias("into"))
    unknown = set(actions["kind"].unique()) - set(c.ACTIONS)
    if unknown:
        raise ValueError(
            f"actions.kind: {', '.join(sorted(unknown))} is unknown, one of {', '.join(c.ACTIONS)} would be right"
        )
    at = {name: number for number, name in enumerate(names)}
    rows = []
    for symbol, session, kind, value, into in actions.select(ACTIONS_SCHEMA.names()).iter_rows():
        if symbol not in at:
            continue
        if kind in ("split", "dividend") and not (value is not None and np.isfinite(value) and value > 0):
            raise ValueError(f"actions.value: {value!r} of {symbol}'s {kind} on {session} is not a positive number")
        if kind == "rename" and into not in at:
            raise ValueError(
                f"actions.into: {symbol} is renamed on {session} into {into!r}, which is not in the market"
            )
        rows.append((day_number(session), c.ACTIONS.index(kind), at[symbol], at.get(into, -1), float(value or 0.0)))
    rows.sort()
    table = np.array([row[:4] for row in rows], dtype=np.int64).reshape(-1, 4)
    return table, np.array([row[4] for row in rows], dtype=np.float64)
