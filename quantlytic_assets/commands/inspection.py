"""`status` and `sql`: reading what is there, changing nothing. `gaps` is beside, in its own module."""

from __future__ import annotations

import csv
import json
import sys
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import duckdb
from rich.table import Table
from rich.text import Text

from quantlytic_assets.commands.installation import CommandError, UsageError
from quantlytic_assets.storage.statements import NotReading, one_select
from quantlytic_assets.tables import bars as bars_table
from quantlytic_assets.tables import coverage as coverage_table

if TYPE_CHECKING:
    from rich.console import Console

    from quantlytic_assets.commands.installation import Installation

# Narrower columns break each value over many lines.
_NARROWEST_COLUMN = 12
_ANY_WIDTH = 1_000_000


def _plain(value: Any) -> Any:
    """A value as JSON has it: times in ISO with their offset, NaN as null."""
    if isinstance(value, datetime):
        return (value.astimezone(UTC) if value.tzinfo else value).isoformat()
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def print_json(rows: Any) -> None:
    """Rows as one JSON text on standard output."""
    json.dump(_plain(rows), sys.stdout, indent=None, allow_nan=False)
    sys.stdout.write("\n")


def status_rows(installation: Installation) -> list[dict[str, Any]]:
    """Per dataset: sessions and those materialized, bars, holes, last bar, its live path, bytes in the archive."""
    from quantlytic_assets.calendars.partitions import known_keys
    from quantlytic_assets.calendars.sessions import session_table

    resources = installation.resources
    bars = {row["dataset"]: row for row in bars_table.summary(resources.lake).to_dicts()}
    covered = {row["dataset"]: row for row in coverage_table.summary(resources.lake).to_dicts()}
    rows = []
    for name, dataset in installation.universe.datasets.items():
        today = datetime.now(UTC).date()
        last = min(dataset.last_session or today, today)
        seen, holes = bars.get(name, {}), covered.get(name, {})
        rows.append(
            {
                "dataset": name,
                "sessions": len(session_table(dataset.calendar, dataset.first_session, last)),
                "partitions": len(known_keys(dataset)),
                "materialized": holes.get("sessions", 0),
                "bars": seen.get("bars", 0),
                "holes": holes.get("holes", 0),
                "missing_bars": holes.get("missing_bars") or 0,
                "last_bar": seen.get("last_open"),
                "live": _live(installation, name),
                "bytes": sum(stored.size for stored in resources.archive.objects(name)),
            }
        )
    return rows


def show_status(installation: Installation, out: Console, as_json: bool) -> None:
    """Print `status_rows`."""
    rows = status_rows(installation)
    if as_json:
        print_json(rows)
        return
    table = Table("dataset", "sessions", "materialized", "bars", "holes", "missing bars", "last bar (UTC)", "archive")
    for row in rows:
        table.add_row(
            row["dataset"],
            f"{row['sessions']:,}",
            f"{row['materialized']:,}",
            f"{row['bars']:,}",
            f"{row['holes']:,}",
            f"{row['missing_bars']:,}",
            f"{row['last_bar']:%Y-%m-%d %H:%M}" if row["last_bar"] else "none",
            f"{row['bytes'] / 1e6:,.1f} MB",
        )
    out.print(table)
    for row in rows:
        if row["live"]:
            out.print(_live_line(row["dataset"], row["live"]), highlight=False, markup=False, soft_wrap=True)


def _live_line(dataset: str, live: dict[str, Any]) -> str:
    """What the live path of a dataset said of itself last, in a line."""
    ago = (datetime.now(UTC) - datetime.fromisoformat(live["at"])).total_seconds()
    told = f"{live['bars']:,} bars, {live['signals']:,} signals, {live['behind']:,} records behind"
    names = ("late", "revised", "differing", "missing", "features_differing", "signals_differing", "lost")
    less = {name.replace("_", " "): live.get(name, 0) for name in names}
    rest = "".join(f", {count:,} {name}" for name, count in less.items() if count)
    return f"live path of {dataset}, {ago:,.0f} s ago: {told}{rest}"


def _live(installation: Installation, dataset: str) -> dict[str, Any] | None:
    """What the live path of a dataset said of itself last; None where there never was one."""
    if not (installation.settings.data / "hot" / "data.mdb").exists():
        return None
    with installation.resources.hot.read() as reader:
        told = reader.fact("live", dataset)
    if told is None:
        return None
    return {name: value for name, value in json.loads(told).items() if name != "stages"}


def run_sql(installation: Installation, out: Console, query: str, table_format: str, as_of: date | None = None) -> None:
    """Run one SELECT and print all its rows; raises `UsageError` for anything that is not a SELECT.

    `as_of` is the day for which views adjust prices; None: today.
    """
    connection = installation.resources.lake.reader()
    try:
        if as_of is not None:
            connection.execute(f"SET VARIABLE as_of = DATE '{as_of.isoformat()}'")
        cursor = connection.execute(one_select(connection, query))
        names = [column[0] for column in cursor.description]
        rows = cursor.fetchall()
    except NotReading as error:
        raise UsageError(str(error)) from error
    except duckdb.Error as error:
        raise CommandError(str(error)) from error
    finally:
        connection.close()
    if table_format == "json":
        print_json([dict(zip(names, row, strict=True)) for row in rows])
    elif table_format == "csv":
        writer = csv.writer(sys.stdout)
        writer.writerow(names)
        writer.writerows([[_csv_cell(value) for value in row] for row in rows])
    else:
        _print_rows(out, names, [["" if value is None else str(_plain(value)) for value in row] for row in rows])


def _print_rows(out: Console, names: list[str], rows: list[list[str]]) -> None:
    """A table; where the terminal is too narrow for its columns, a block of lines for each row as in psql."""
    table = Table()
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    natural = out.measure(table, options=out.options.update_width(_ANY_WIDTH)).maximum
    if natural <= out.width or len(names) * _NARROWEST_COLUMN <= out.width:
        out.print(table)
        return
    label = max(map(len, names)) + 2
    for i, row in enumerate(rows, 1):
        out.rule(f"row {i:,}", align="left")
        for name, value in zip(names, row, strict=True):
            out.print(Text(name.ljust(label), "bold").append(value, "not bold"))


def _csv_cell(value: Any) -> Any:
    plain = _plain(value)
    return json.dumps(plain) if isinstance(plain, (dict, list)) else plain
