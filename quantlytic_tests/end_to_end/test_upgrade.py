"""An installation that commit 5d84320 made is upgraded at another place than it was made, and goes on.

A step of `storage/migrations` that renames or drops something says so in RENAMED or DROPPED.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from quantlytic_assets.resources import make_resources
from quantlytic_tests.end_to_end.installations import Done, Installed, in_order
from quantlytic_tests.old_installation import unpacked

# Tables of the lake, and of the state database, whose name is another one today.
RENAMED: dict[str, str] = {"clean.share_counts": "clean.split_factors"}
# Words that a column has otherwise today.
RENAMED_VALUES = {"refused": "rejected"}
# Columns that are called otherwise today, by the table's name of today.
RENAMED_COLUMNS: dict[str, dict[str, str]] = {}
# Columns that are no more: what recursions went on from.
DROPPED_COLUMNS = {
    "features.indicators": ("rsi_14_avg_gain", "rsi_14_avg_loss"),
    "trading.orders": ("reference_price",),
}
# Tables that are no more: what accounts were computed from.
DROPPED = {"trading.accounts"}


@dataclass
class Upgrade:
    """What each step said, and the rows before and after."""

    installed: Installed
    reading_before: list[Done]
    dry_run: Done
    lake_before: dict[str, pl.DataFrame]
    lake_after_dry_run: dict[str, pl.DataFrame]
    lake_after: dict[str, pl.DataFrame]
    state_before: dict[str, list[tuple]]
    state_after: dict[str, list[tuple]]
    migrate: Done
    again: Done


def lake_rows(installed: Installed) -> dict[str, pl.DataFrame]:
    """All tables, whatever the layout."""
    connection = make_resources(installed.settings()).lake._open("READ_ONLY")
    try:
        tables = connection.execute(
            "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = 'lake' AND schema_name != 'meta'"
        ).fetchall()
        views = connection.execute(
            "SELECT schema_name, view_name FROM duckdb_views() "
            "WHERE database_name = 'lake' AND view_name = 'indicators'"
        ).fetchall()
        return {
            f"{schema}.{table}": in_order(connection.execute(f'SELECT * FROM "{schema}"."{table}"').pl())
            for schema, table in [*tables, *views]
        }
    finally:
        connection.close()


def state_rows(installed: Installed) -> dict[str, list[tuple]]:
    with closing(sqlite3.connect(installed.home / "state" / "quantlytic.sqlite")) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        return {
            table: sorted(connection.execute(f"SELECT * FROM {table}").fetchall(), key=str)
            for (table,) in tables
            if not table.startswith(("alembic", "sqlite"))
        }


@pytest.fixture(scope="module")
def upgrade(tmp_path_factory) -> Upgrade:
    installed = unpacked(tmp_path_factory.mktemp("upgrade"))
    lake_before, state_before = lake_rows(installed), state_rows(installed)
    *reading, dry_run = installed.run_in_turn(
        [["sql", "SELECT 1"], ["status"], ["gaps"], ["migrate", "--dry-run"]], at_once=1
    )
    lake_after_dry_run = lake_rows(installed)
    migrate, again = installed.run("migrate"), installed.run("migrate")
    return Upgrade(
        installed,
        reading,
        dry_run,
        lake_before,
        lake_after_dry_run,
        lake_rows(installed),
        state_before,
        state_rows(installed),
        migrate,
        again,
    )


def test_commands_that_read_say_what_to_run(upgrade):
    for done in upgrade.reading_before:
        assert "older version" in done.expect(1).err and "`quantlytic migrate`" in done.err


def test_a_dry_run_says_what_is_to_do_and_changes_nothing(upgrade):
    said = upgrade.dry_run.expect(0).out
    assert "to do: state: first layout" in said and "to do: lake: The catalog stores where the data lies" in said
    assert upgrade.lake_after_dry_run.keys() == upgrade.lake_before.keys()
    assert all(rows.equals(upgrade.lake_before[table]) for table, rows in upgrade.lake_after_dry_run.items())


def test_migrate_does_it_and_then_has_nothing_to_do(upgrade):
    done = upgrade.migrate.expect(0).out.splitlines()
    assert [line.replace("to do:", "migrating:") for line in upgrade.dry_run.out.splitlines()[:-1]] == done[:-1]
    assert "nothing to do" in upgrade.again.expect(0).out


def test_no_row_of_the_lake_is_lost_or_changed(upgrade):
    assert sum(map(len, upgrade.lake_before.values())) > 4_800
    assert not DROPPED & upgrade.lake_after.keys()
    for table, before in upgrade.lake_before.items():
        if table in DROPPED:
            continue
        today = RENAMED.get(table, table)
        before = before.rename(RENAMED_COLUMNS.get(today, {}), strict=False)
        before = before.drop(DROPPED_COLUMNS.get(today, ()), strict=False)
        assert set(DROPPED_COLUMNS.get(today, ())).isdisjoint(upgrade.lake_after[today].columns)
        if "status" in before.columns:
            before = before.with_columns(pl.col("status").replace(RENAMED_VALUES))
        after = upgrade.lake_after[today].select(before.columns)
        assert in_order(after).equals(in_order(before)), table


def test_no_order_fill_or_attempt_is_lost_or_changed(upgrade):
    counts = {table: len(rows) for table, rows in upgrade.state_before.items()}
    assert (counts["orders"], counts["fills"], counts["vendor_attempts"]) == (33, 32, 23)
    for table, rows in upgrade.state_before.items():
        renamed = [tuple(RENAMED_VALUES.get(value, value) for value in row) for row in rows]
        assert upgrade.state_after[RENAMED.get(table, table)] == sorted(renamed, key=str)


def test_it_goes_on_where_it_is_now(upgrade):
    installed = upgrade.installed
    status, bars, gaps = installed.run_in_turn(
        [
            ["status", "--json"],
            ["sql", "--format", "json", "SELECT count(*) AS bars, count(DISTINCT dataset) AS datasets FROM clean.bars"],
            ["gaps", "equities_1d", "--json"],
        ]
    )
    assert {row["dataset"]: row["bars"] for row in status.expect(0).json()} == {
        "equities_1d": 544,
        "crypto_1m": 1440,
        "mine_1d": 4,
    }
    assert bars.expect(0).json() == [{"bars": 1988, "datasets": 3}]
    assert {(row["symbol"], row["missing_bars"]) for row in gaps.expect(0).json()} == {("NONE", 1)}
    # A session and a month that the older version had not made; the strategy's model of before is found.
    installed.run("backfill", "crypto_1m", "--from", "2025-05-11").expect(0)
    installed.run("backfill", "equities_1d", "--from", "2018-02-01").expect(0)
    assert installed.rows("SELECT count(*) AS bars FROM clean.bars WHERE dataset = 'crypto_1m'").item() == 2880
    assert installed.rows("SELECT max(session)::VARCHAR AS last FROM ml.predictions").item() >= "2018-02-01"
    # The engine goes on from the account of before, whose orders and fills are among its events.
    account = installed.rows("SELECT * FROM trading.equity WHERE strategy = 'momentum_1d' ORDER BY session")
    before = upgrade.lake_after["trading.equity"].sort("session")
    assert account.head(len(before)).equals(before) and len(account) > len(before)
    orders = installed.rows("SELECT order_ref, status FROM trading.orders WHERE strategy = 'momentum_1d'")
    assert {row[0] for row in upgrade.state_before["orders"]} < set(orders["order_ref"])
    fills = installed.rows("SELECT order_ref, price, quantity, commission FROM trading.fills")
    old = upgrade.lake_after["trading.fills"].select(fills.columns)
    assert len(fills) > len(old) and fills.join(old, on=fills.columns, how="semi").height == len(old)
    # What is held and the cash add up to the equity, from one day to the next.
    apart = installed.rows(
        "SELECT e.session FROM trading.equity e JOIN (SELECT session, sum(market_value) AS held FROM trading.positions "
        "GROUP BY session) USING (session) WHERE abs(equity - cash - held) > 1e-6"
    )
    assert apart.is_empty()
    # Nothing was written to the place that the older version knew.
    assert not Path("/opt/installation").exists()
