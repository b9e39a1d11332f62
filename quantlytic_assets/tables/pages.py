"""What the pages read from the lake: every query of theirs, on one read-only connection.

Nothing is made or changed: a lake, or a table, that is not there yet has no rows.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

import duckdb
import polars as pl

from quantlytic_assets.storage.lake import Lake, NoLake
from quantlytic_assets.storage.literals import with_literals

# Bars before a partition from which its averages can be read.
_BARS_BEFORE = 120


class LakeRows:
    """Rows of a lake. Safe for the threads of a server: they take turns."""

    def __init__(self, lake: Lake):
        self._lake = lake
        self._turn = threading.Lock()
        self._connection: duckdb.DuckDBPyConnection | None = None

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> pl.DataFrame:
        """Rows of a SELECT; none, without columns, where the lake or the table does not exist yet."""
        with self._turn:
            try:
                return self._asked(sql, parameters)
            except duckdb.Error:
                # The catalog was replaced or its server restarted.
                self.close()
                return self._asked(sql, parameters)

    def _asked(self, sql: str, parameters: Sequence[Any]) -> pl.DataFrame:
        try:
            return self._connected().execute(with_literals(sql, parameters)).pl()
        except (duckdb.CatalogException, NoLake):
            return pl.DataFrame()

    def _connected(self) -> duckdb.DuckDBPyConnection:
        if self._connection is None:
            self._connection = self._lake.reader(make=False)
        return self._connection

    def close(self) -> None:
        """Let the connection go."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def sessions(self, dataset: str) -> pl.DataFrame:
        """session, expected, present, missing of a dataset, newest first."""
        return self.query(
            "SELECT session, sum(expected_bars)::BIGINT AS expected, sum(present_bars)::BIGINT AS present, "
            "sum(missing_bars)::BIGINT AS missing FROM clean.coverage WHERE dataset = ? "
            "GROUP BY session ORDER BY session DESC",
            [dataset],
        )

    def coverage(self, dataset: str, first: date, last: date) -> pl.DataFrame:
        """Rows of clean.coverage, sessions [first, last)."""
        return self.query(
            "SELECT * FROM clean.coverage WHERE dataset = ? AND session >= ? AND session < ?", [dataset, first, last]
        )

    def hours(self, dataset: str, session: date) -> tuple[datetime, datetime] | None:
        """Open and close of a session, UTC; None where it is not in clean.sessions."""
        rows = self.query(
            "SELECT open_time, close_time FROM clean.sessions WHERE dataset = ? AND session = ?", [dataset, session]
        )
        return rows.row(0) if len(rows) else None

    def whole_coverage(self, dataset: str) -> pl.DataFrame:
        """What a heat map shows of clean.coverage, of all sessions."""
        return self.query(
            "SELECT dataset, symbol, session, expected_bars, present_bars, missing_bars, cause FROM clean.coverage "
            "WHERE dataset = ?",
            [dataset],
        )

    def bars(self, dataset: str, symbol: str, first: date, last: date) -> pl.DataFrame:
        """A symbol's rows of clean.bars, sessions [first, last)."""
        return self.query(
            "SELECT symbol, open_time, open, high, low, close, volume FROM clean.bars "
            "WHERE dataset = ? AND symbol = ? AND session >= ? AND session < ?",
            [dataset, symbol, first, last],
        )

    def symbols(self, dataset: str, first: date, last: date) -> pl.DataFrame:
        """symbol, bars, flagged of the sessions [first, last), by symbol."""
        return self.query(
            "SELECT symbol, count(*) AS bars, count(*) FILTER (len(flags) > 0) AS flagged FROM clean.bars "
            "WHERE dataset = ? AND session >= ? AND session < ? GROUP BY symbol ORDER BY symbol",
            [dataset, first, last],
        )

    def quarantined(self, dataset: str, first: date, last: date) -> pl.DataFrame:
        """reason, rows of clean.quarantine, sessions [first, last), most first."""
        return self.query(
            "SELECT reason, count(*) AS rows FROM clean.quarantine WHERE dataset = ? AND session >= ? AND session < ? "
            "GROUP BY reason ORDER BY rows DESC, reason",
            [dataset, first, last],
        )

    def indicators(self, dataset: str, symbol: str, interval: str, first: date, last: date) -> pl.DataFrame:
        """A symbol's rows of features.indicators, sessions [first, last) and some bars before, oldest first."""
        rows = self.query(
            'SELECT * FROM features.indicators WHERE dataset = ? AND symbol = ? AND "interval" = ? AND session < ? '
            "ORDER BY open_time DESC LIMIT ? + (SELECT count(*) FROM features.indicators "
            'WHERE dataset = ? AND symbol = ? AND "interval" = ? AND session >= ? AND session < ?)',
            [dataset, symbol, interval, last, _BARS_BEFORE, dataset, symbol, interval, first, last],
        )
        return rows.reverse()

    def family(self, dataset: str, columns: Sequence[str], interval: str, first: date, last: date) -> pl.DataFrame:
        """close, features and forward_return (of the shortest horizon) of usable bars, sessions [first, last)."""
        names = ", ".join(f'"{name}"' for name in columns)
        key = 'dataset, symbol, "interval", open_time'
        return self.query(
            f"SELECT close, {names}, forward_return FROM features.indicators LEFT JOIN (SELECT {key}, "
            "arg_min(forward_return, horizon) AS forward_return FROM features.labels WHERE dataset = ? "
            f'AND "interval" = ? AND session >= ? AND session < ? GROUP BY ALL) AS known USING ({key}) '
            'WHERE dataset = ? AND "interval" = ? AND session >= ? AND session < ? AND close IS NOT NULL',
            [dataset, interval, first, last, dataset, interval, first, last],
        )

    def labels(self, dataset: str, interval: str, first: date, last: date) -> pl.DataFrame:
        """horizon, forward_return, label of features.labels, sessions [first, last)."""
        return self.query(
            'SELECT horizon, forward_return, label FROM features.labels WHERE dataset = ? AND "interval" = ? '
            "AND session >= ? AND session < ?",
            [dataset, interval, first, last],
        )

    def predictions(self, strategy: str, first: date, last: date) -> pl.DataFrame:
        """symbol, open_time, score of ml.predictions, sessions [first, last)."""
        return self.query(
            "SELECT symbol, open_time, score FROM ml.predictions WHERE strategy = ? AND session >= ? AND session < ?",
            [strategy, first, last],
        )

    def equity(self, strategy: str, first: date, last: date) -> pl.DataFrame:
        """session, equity of trading.equity, sessions [first, last), oldest first."""
        return self.query(
            "SELECT session, equity FROM trading.equity WHERE strategy = ? AND session >= ? AND session < ? "
            "ORDER BY session",
            [strategy, first, last],
        )

    def fills(self, strategy: str, first: date, last: date) -> pl.DataFrame:
        """session, symbol, side, price, quantity of trading.fills, sessions [first, last)."""
        return self.query(
            "SELECT session, symbol, side, price, quantity FROM trading.fills "
            "WHERE strategy = ? AND session >= ? AND session < ? ORDER BY session, symbol",
            [strategy, first, last],
        )

    def traded_bars(
        self, strategy: str, dataset: str, symbol: str, interval: str, first: date, last: date
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        """A symbol's rows of features.bars at an interval, and its fills there, sessions [first, last)."""
        bars = self.query(
            "SELECT symbol, open_time, open, high, low, close, volume FROM features.bars WHERE dataset = ? "
            'AND symbol = ? AND "interval" = ? AND session >= ? AND session < ? AND close IS NOT NULL',
            [dataset, symbol, interval, first, last],
        )
        fills = self.query(
            "SELECT fill_time, side, price, quantity FROM trading.fills WHERE strategy = ? AND symbol = ? "
            "AND fill_session >= ? AND fill_session < ? ORDER BY fill_time",
            [strategy, symbol, first, last],
        )
        return bars, fills

    def traded_symbols(self, strategy: str, first: date, last: date) -> list[str]:
        """The symbols that a strategy traded in the sessions [first, last), the one with most fills first."""
        found = self.query(
            "SELECT symbol, count(*) AS fills FROM trading.fills WHERE strategy = ? AND fill_session >= ? "
            "AND fill_session < ? GROUP BY symbol ORDER BY fills DESC, symbol",
            [strategy, first, last],
        )
        return found["symbol"].to_list() if len(found) else []

    def traded(self, strategy: str) -> pl.DataFrame:
        """session, fills of every session that the strategy has an account of, newest first."""
        return self.query(
            "SELECT e.session, count(f.order_ref) AS fills FROM trading.equity e LEFT JOIN trading.fills f "
            "USING (strategy, session) WHERE e.strategy = ? GROUP BY e.session ORDER BY e.session DESC",
            [strategy],
        )
