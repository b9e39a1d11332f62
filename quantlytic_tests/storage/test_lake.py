"""The lake under several processes, kills and other people's SQL."""

import time
from datetime import date, timedelta

import duckdb
import polars as pl
import pytest

from quantlytic_assets.calendars.intervals import TIME
from quantlytic_assets.market_data.bars import CLEAN_SCHEMA, COVERAGE_SCHEMA, QUARANTINE_SCHEMA
from quantlytic_assets.resources import make_resources
from quantlytic_tests.frames import utc
from quantlytic_tests.storage.processes import (
    lake_rows,
    replace_at_once,
    replace_forever,
    replace_session,
    start,
    together,
)

DAY = date(2025, 3, 3)

# The public tables, as scripts may rely on them.
TABLES = {
    "clean.bars": "dataset symbol session open_time close_time open high low close volume vwap trade_count vendor "
    "fetched_at adjustment available_at flags",
    "clean.quarantine": "dataset symbol session open_time reason raw source_object source_row",
    "clean.coverage": "dataset symbol session expected_bars present_bars missing_bars cause missing_ranges attempts "
    "checked_at",
    "ml.predictions": "strategy symbol session open_time available_at score prediction model_version trained_through",
}


@pytest.fixture
def lake(place):
    return place.resources.lake


def versions(lake):
    """How many rows of clean.bars there are of each version."""
    rows = lake.query("SELECT symbol, close::INT AS version, count(*) AS n FROM clean.bars GROUP BY ALL ORDER BY ALL")
    return rows.rows()


@pytest.mark.parametrize("table", TABLES)
def test_a_public_table_has_exactly_its_columns(lake, table):
    assert lake.query(f"SELECT * FROM {table}").columns == TABLES[table].split()


@pytest.mark.parametrize("table", ["trading.orders", "trading.fills", "trading.positions"])
def test_the_trading_tables_are_keyed_by_strategy_session_and_symbol(lake, table):
    assert {"strategy", "session", "symbol"} <= set(lake.query(f"SELECT * FROM {table}").columns)
    if table != "trading.positions":
        assert "order_ref" in lake.query(f"SELECT * FROM {table}").columns


@pytest.mark.parametrize(
    ("table", "schema"),
    [("clean.bars", CLEAN_SCHEMA), ("clean.quarantine", QUARANTINE_SCHEMA), ("clean.coverage", COVERAGE_SCHEMA)],
)
def test_a_frame_of_the_project_s_schema_comes_back_as_it_went_in(lake, table, schema):
    values = {
        pl.String: "text",
        pl.Date: DAY,
        pl.Float64: 0.1,
        pl.Int64: 1 << 40,
        TIME: utc("2025-03-03T14:30:00.123456"),
        schema.get("flags"): ["zero_volume", "jump"],
        schema.get("missing_ranges"): [
            {"start": utc("2025-03-03T14:30"), "end": utc("2025-03-03T15:00"), "cause": "outage"}
        ],
    }
    rows = pl.DataFrame([[values[kind] for kind in schema.values()], [None] * len(schema)], schema=schema, orient="row")
    lake.replace([(table, "true", [], rows)])
    back = lake.query(f"SELECT * FROM {table} ORDER BY dataset NULLS LAST")
    assert back.cast(dict(schema)).equals(rows)


def test_times_come_back_in_utc(lake):
    lake.replace([("clean.bars", "true", [], lake_rows(1, "A", DAY, 1))])
    assert lake.query("SELECT open_time FROM clean.bars").schema["open_time"] == TIME


def test_replacing_removes_what_meets_the_condition_and_nothing_else(lake):
    for symbol in ("A", "B"):
        for day in (DAY, DAY + timedelta(days=1)):
            replace_session(lake, 1, symbol, day, 10)
    replace_session(lake, 2, "A", DAY, 3)
    assert versions(lake) == [("A", 1, 10), ("A", 2, 3), ("B", 1, 20)]
    replace_session(lake, 3, "A", DAY, 0)
    assert versions(lake) == [("A", 1, 10), ("B", 1, 20)]


def test_each_replacement_is_a_snapshot_that_can_be_looked_at_again(lake):
    first = replace_session(lake, 1, "A", DAY, 10)
    second = replace_session(lake, 2, "A", DAY, 7)
    assert second > first
    then = lake.query(f"SELECT count(*), max(close) FROM clean.bars AT (VERSION => {first})").row(0)
    assert then == (10, 1.0)


def test_a_replacement_that_fails_changes_nothing_in_any_table(lake):
    replace_session(lake, 1, "A", DAY, 10)
    broken = pl.DataFrame({"dataset": ["d"], "no_such_column": [1]})
    with pytest.raises(duckdb.Error, match="no_such_column"):
        lake.replace([("clean.bars", "true", [], lake_rows(2, "A", DAY, 5)), ("clean.coverage", "true", [], broken)])
    assert versions(lake) == [("A", 1, 10)]
    # And the connection goes on working.
    replace_session(lake, 3, "A", DAY, 4)
    assert versions(lake) == [("A", 3, 4)]


def test_a_killed_writer_leaves_the_old_rows_or_the_new_ones_in_all_tables(place, lake):
    newest = 0
    for attempt in range(4):
        process = start(replace_forever, place, DAY, 2_000)
        deadline = time.monotonic() + 60
        snapshot = lake.snapshot()
        while lake.snapshot() < snapshot + 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.013 * attempt)
        process.kill()
        process.join()
        (row,) = lake.query(
            "SELECT count(*), count(DISTINCT close), max(close)::INT, (SELECT max(present_bars) FROM clean.coverage), "
            "(SELECT count(*) FROM clean.coverage) FROM clean.bars"
        ).rows()
        newest = row[2]
        assert row == (2_000, 1, newest, newest, 1)
    assert newest >= 1
    replace_session(lake, 10_000, "A", DAY, 3)
    assert versions(lake) == [("A", 10_000, 3)]


def test_processes_that_write_a_session_for_the_first_time_at_once_leave_one_set_of_rows(place, lake):
    symbols = [f"S{i}" for i in range(6)]
    together(replace_at_once, [(place, version, symbols, DAY, 500) for version in (1, 2, 3)])
    found = versions(lake)
    assert [(symbol, count) for symbol, _, count in found] == [(symbol, 500) for symbol in symbols]
    assert {version for _, version, _ in found} <= {1, 2, 3}


def test_four_writers_at_once_lose_nothing(place, lake):
    names = {version: [f"{version}-{i}" for i in range(4)] for version in (1, 2, 3, 4)}
    together(replace_at_once, [(place, version, names[version], DAY, 50) for version in names])
    wanted = sorted((symbol, version, 50) for version, symbols in names.items() for symbol in symbols)
    assert sorted(versions(lake)) == wanted


class Interrupted(list):
    """Changes during which, the first time they are gone through, another client commits."""

    def __init__(self, changes, interruption):
        super().__init__(changes)
        self.interruption = interruption

    def __iter__(self):
        yield from super().__iter__()
        if self.interruption:
            interruption, self.interruption = self.interruption, None
            interruption()


def test_a_writer_tries_again_when_a_client_that_takes_no_turns_commits_first(place, lake):
    replace_session(lake, 1, "A", DAY, 10)
    # dbt is such a client: it does not know the lock.
    client = make_resources(place.settings).lake
    other = client.connect()
    commits = []

    def delete():
        commits.append(other.execute("DELETE FROM clean.bars WHERE symbol = 'A'").fetchall())

    changes = [("clean.bars", "symbol = ?", ["A"], lake_rows(2, "A", DAY, 7))]
    lake.replace(Interrupted(changes, delete))
    assert commits == [[(10,)]]
    assert versions(lake) == [("A", 2, 7)]


def test_a_reader_cannot_write(lake):
    replace_session(lake, 1, "A", DAY, 10)
    reader = lake.reader()
    for statement in (
        "INSERT INTO clean.bars (dataset) VALUES ('x')",
        "UPDATE clean.bars SET close = 0",
        "DELETE FROM clean.bars",
        "DROP TABLE clean.bars",
        "CREATE TABLE clean.mine (a INTEGER)",
        "CREATE OR REPLACE VIEW clean.bars AS SELECT 1",
        "ALTER TABLE clean.bars ADD COLUMN a INTEGER",
    ):
        with pytest.raises(duckdb.Error, match="read-only"):
            reader.execute(statement)
    reader.close()
    assert versions(lake) == [("A", 1, 10)]


def test_the_reader_of_a_lake_that_was_never_written_finds_its_tables_and_cannot_write_either(lake):
    reader = lake.reader()
    assert reader.execute("SELECT count(*) FROM clean.bars").fetchall() == [(0,)]
    with pytest.raises(duckdb.Error, match="read-only"):
        reader.execute("INSERT INTO clean.bars (dataset) VALUES ('x')")
    reader.close()


def test_a_reader_waits_for_no_writer(lake):
    replace_session(lake, 1, "A", DAY, 10)
    with lake.commit_lock:
        reader = lake.reader()
        assert reader.execute("SELECT count(*) FROM clean.bars").fetchall() == [(10,)]
        reader.close()


def test_a_deleted_lake_is_made_anew(place):
    first = make_resources(place.settings).lake
    replace_session(first, 1, "A", DAY, 10)
    first.connect().close()
    place.delete_lake()
    again = place.resources.lake
    assert versions(again) == []
    assert replace_session(again, 2, "A", DAY, 4) > 0


def test_whether_a_table_exists_can_be_asked(lake):
    assert lake.has_table("clean.bars")
    assert not lake.has_table("features.indicators")
