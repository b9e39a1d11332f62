"""A gap sensor's memory of coverage: equal to the table after each reading, and no row read twice without need."""

from datetime import date, timedelta

import polars as pl
import pytest

from quantlytic_assets.automation.coverage_memory import CoverageMemory
from quantlytic_assets.market_data.bars import COVERAGE_SCHEMA
from quantlytic_assets.services.gaps import coverage_rows
from quantlytic_assets.storage.lake import local_lake
from quantlytic_tests.frames import utc

NOW = utc("2025-06-20T12:00")
FIRST = date(2015, 1, 1)


class CountedLake:
    """A lake that counts the rows it is asked for."""

    def __init__(self, lake):
        self.lake, self.rows, self.queries = lake, 0, 0
        self.snapshot = lake.snapshot

    def query(self, sql, parameters=()):
        frame = self.lake.query(sql, parameters)
        self.queries += 1
        self.rows += len(frame)
        return frame

    def counted(self):
        counts, self.rows, self.queries = (self.queries, self.rows), 0, 0
        return counts


def cover(lake, sessions, checked_at, missing=0, symbols=("A", "B")):
    """Write coverage of sessions as the asset does."""
    rows = pl.DataFrame(
        [
            {
                "dataset": "d",
                "symbol": symbol,
                "session": session,
                "expected_bars": 390,
                "present_bars": 390 - missing,
                "missing_bars": missing,
                "cause": "not_fetched" if missing else None,
                "missing_ranges": [],
                "attempts": 0,
                "checked_at": checked_at,
            }
            for symbol in symbols
            for session in sessions
        ],
        schema=COVERAGE_SCHEMA,
    )
    lake.replace(
        [("clean.coverage", "dataset = 'd' AND session BETWEEN ? AND ?", [min(sessions), max(sessions)], rows)]
    )


@pytest.fixture
def lake(tmp_path):
    return local_lake(tmp_path / "lake", "500MB", 2)


@pytest.fixture
def history(lake):
    """Ten years that were looked at long ago."""
    sessions = [FIRST + timedelta(days=i) for i in range(3_650)]
    cover(lake, sessions, NOW - timedelta(days=3))
    return sessions


def same(found, lake):
    order = ["symbol", "session"]
    return found.sort(order).equals(coverage_rows(lake, "d").sort(order))


def test_a_tick_reads_only_what_was_covered_since_the_last_one(lake, history):
    memory, counted = CoverageMemory("d"), CountedLake(lake)
    assert same(memory.read(counted, NOW), lake)
    assert counted.counted() == (1, 7_300)
    for minute in range(1, 4):
        assert len(memory.read(counted, NOW + timedelta(minutes=minute))) == 7_300
    assert counted.counted() == (0, 0)
    cover(lake, history[-2:], NOW, missing=5)
    assert same(memory.read(counted, NOW + timedelta(minutes=5)), lake)
    assert counted.counted() == (1, 4)


def test_a_snapshot_that_another_table_made_costs_a_question_and_no_row(lake, history):
    memory, counted = CoverageMemory("d"), CountedLake(lake)
    memory.read(counted, NOW)
    cover_of_other = pl.DataFrame({"dataset": "other", "symbol": "A", "session": [FIRST], "checked_at": [NOW]})
    lake.replace([("clean.coverage", "dataset = 'other'", [], cover_of_other)])
    counted.counted()
    assert same(memory.read(counted, NOW + timedelta(minutes=1)), lake)
    assert counted.counted() == (1, 0)


def test_rows_that_are_committed_after_newer_ones_are_seen(lake, history):
    memory = CoverageMemory("d")
    cover(lake, history[-1:], NOW)
    memory.read(lake, NOW)
    cover(lake, history[:1], NOW - timedelta(days=2), missing=7)
    assert same(memory.read(lake, NOW + timedelta(minutes=1)), lake)


def test_merged_files_bring_no_row_again_that_is_not_wanted(lake, history):
    memory, counted = CoverageMemory("d"), CountedLake(lake)
    for session in history[-5:]:
        cover(lake, [session], NOW)
    memory.read(counted, NOW)
    counted.counted()
    lake.connect().execute("CALL ducklake_merge_adjacent_files('lake')")
    cover(lake, history[:1], NOW, missing=2)
    assert same(memory.read(counted, NOW + timedelta(minutes=1)), lake)
    assert counted.counted() == (1, 2)


def test_deleted_rows_are_gone_after_an_hour_at_most_and_at_once_with_a_new_lake(lake, history, tmp_path):
    memory = CoverageMemory("d")
    memory.read(lake, NOW)
    with lake.transaction() as connection:
        connection.execute("DELETE FROM clean.coverage WHERE session < ?", [history[100]])
    assert same(memory.read(lake, NOW + timedelta(hours=1)), lake)
    new = local_lake(tmp_path / "new", "500MB", 2)
    assert memory.read(new, NOW + timedelta(hours=1, minutes=1)).is_empty()


def test_a_dataset_without_coverage_is_read_whole_until_it_has_some(lake):
    memory = CoverageMemory("d")
    assert memory.read(lake, NOW).is_empty()
    cover(lake, [FIRST], NOW - timedelta(days=30), missing=3)
    assert same(memory.read(lake, NOW + timedelta(minutes=1)), lake)
