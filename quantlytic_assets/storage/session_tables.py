"""Session tables on disk, so that commands need not load `exchange_calendars` to look at them.

To load it and pandas takes longer than everything else that `quantlytic status` does. Tables belong to a version of the
library and to whole decades; they are made again where they are missing or can't be read.
"""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path

import polars as pl

from quantlytic_assets.calendars.sessions import keep_tables
from quantlytic_assets.settings import Settings


class SessionTables:
    """A directory of session tables, one file a calendar and stretch of years."""

    def __init__(self, directory: Path):
        self._directory = directory

    def read(self, calendar: str, first_year: int, last_year: int) -> pl.DataFrame | None:
        """The table of these years, or None where there is none that can be read."""
        try:
            return pl.read_parquet(self._path(calendar, first_year, last_year))
        except (OSError, pl.exceptions.PolarsError):
            return None

    def write(self, calendar: str, first_year: int, last_year: int, table: pl.DataFrame) -> None:
        """Keep a table; where the disk takes none it is only slower the next time."""
        path = self._path(calendar, first_year, last_year)
        half = path.with_suffix(f".{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            table.write_parquet(half)
            half.replace(path)
        except OSError:
            return

    def _path(self, calendar: str, first_year: int, last_year: int) -> Path:
        name = f"{calendar.replace('/', '-')}.{first_year}-{last_year}.{version('exchange_calendars')}.parquet"
        return self._directory / name


def keep_session_tables(settings: Settings) -> None:
    """Keep this process's session tables in the data directory."""
    keep_tables(SessionTables(settings.data / "cache" / "sessions"))
