"""Maintenance makes the lake smaller and changes no row of any snapshot that is kept, whoever writes beside it."""

import random
import time
from datetime import UTC, datetime, timedelta

import duckdb
import obstore
import polars as pl
import pytest
from obstore.store import LocalStore

from quantlytic_assets.storage import maintenance
from quantlytic_assets.storage.maintenance import lake_size, maintain_lake
from quantlytic_tests.storage.maintaining import DAY, maintain_at_once, maintain_forever
from quantlytic_tests.storage.processes import lake_rows, replace_session, start, together

A_MONTH, A_DAY = timedelta(days=31), timedelta(days=1)


@pytest.fixture
def lake(place):
    return place.resources.lake


def in_a_month():
    return datetime.now(UTC) + A_MONTH


def snapshots(lake):
    return lake.query("SELECT snapshot_id FROM lake.snapshots() ORDER BY 1")["snapshot_id"].to_list()


def rows_at(lake, snapshot):
    """What clean.bars and clean.coverage held at a snapshot."""
    at = f"AT (VERSION => {snapshot})"
    bars = lake.query(f"SELECT symbol, session, open_time, close FROM clean.bars {at} ORDER BY ALL")
    return bars, lake.query(f"SELECT symbol, session, present_bars FROM clean.coverage {at} ORDER BY ALL")


def same(one, other):
    return all(a.equals(b) for a, b in zip(one, other, strict=True))


def data_store(place):
    """The lake's files, as a store."""
    if place.embedded:
        return LocalStore(str(place.settings.directory("lake") / "data"))
    return place.resources.bucket.store("lake")


def files(place):
    return sorted(item["path"] for batch in obstore.list(data_store(place)) for item in batch)


def current_names(lake):
    """The names of the files that hold the lake's current rows, and of those that say which of the rows are deleted."""
    paths = " UNION ALL ".join(
        f"SELECT path FROM __ducklake_metadata_lake.{table} WHERE end_snapshot IS NULL"
        for table in ("ducklake_data_file", "ducklake_delete_file")
    )
    return {path.rpartition("/")[2] for path in lake.query(paths)["path"]}


def fill(lake, days=12, rows=50):
    """Bars of many sessions, each written by itself and so in a file of its own."""
    for i in range(days):
        replace_session(lake, 1, "A", DAY + timedelta(days=i), rows)


def test_small_files_become_one_with_the_same_rows(lake):
    fill(lake)
    before, size = rows_at(lake, lake.snapshot()), lake_size(lake)
    done = maintain_lake(lake)
    assert (done.merged_files, done.problems) == (12, [])
    assert (size.files, lake_size(lake).files) == (12, 1)
    assert same(rows_at(lake, lake.snapshot()), before)
    assert maintain_lake(lake).merged_files == 0


def test_files_are_made_as_large_as_somebody_has_said(lake):
    lake.connect().execute("CALL ducklake_set_option('lake', 'target_file_size', '10KB')")
    fill(lake)
    before = rows_at(lake, lake.snapshot())
    done = maintain_lake(lake)
    assert done.problems == []
    assert 1 < lake_size(lake).files < 12
    assert same(rows_at(lake, lake.snapshot()), before)
    options = "SELECT value FROM ducklake_options('lake') WHERE option_name = 'target_file_size'"
    assert lake.query(options).item() == "10000"


def test_few_files_are_left_as_they_are(lake):
    fill(lake, days=5)
    assert maintain_lake(lake).merged_files == 0
    assert lake_size(lake).files == 5


def test_files_that_have_lost_most_of_their_rows_are_written_anew(lake):
    days = [DAY + timedelta(days=i) for i in range(4)]
    rows = pl.concat(lake_rows(1, "A", day, 50) for day in days)
    lake.replace([("clean.bars", "true", [], rows)])
    for day in days[:3]:
        replace_session(lake, 2, "A", day, 0)
    before = rows_at(lake, lake.snapshot())
    assert len(before[0]) == 50
    done = maintain_lake(lake)
    assert (done.rewritten_files, done.problems) == (1, [])
    assert same(rows_at(lake, lake.snapshot()), before)


def test_snapshots_expire_when_another_had_followed_before_the_time_that_is_kept(lake):
    fill(lake, days=3)
    known = snapshots(lake)
    time.sleep(0.01)
    then = datetime.now(UTC)
    time.sleep(0.01)
    replace_session(lake, 2, "A", DAY, 7)
    replace_session(lake, 3, "A", DAY, 5)
    assert maintain_lake(lake, now=then + timedelta(days=29)).expired_snapshots == 0
    done = maintain_lake(lake, now=then + timedelta(days=30))
    assert done.expired_snapshots == len(known) - 1
    # What held at that moment can still be looked at.
    assert snapshots(lake)[0] == known[-1]
    assert len(rows_at(lake, known[-1])[0]) == 150
    maintain_lake(lake, now=in_a_month())
    assert len(snapshots(lake)) == 1
    assert len(rows_at(lake, lake.snapshot())[0]) == 105


def test_snapshots_of_the_same_day_are_told_apart(lake):
    fill(lake, days=3)
    assert maintain_lake(lake, keep_snapshots=timedelta(hours=1)).expired_snapshots == 0


def test_files_that_nothing_needs_stay_for_the_time_of_grace_and_go_then(place, lake):
    fill(lake)
    reader = lake.reader()
    done = maintain_lake(lake)
    assert (done.deleted_files, lake_size(lake).waiting_files) == (0, 12)
    assert maintain_lake(lake, grace=timedelta(hours=1)).deleted_files == 0
    assert len(files(place)) == 13
    assert reader.execute("SELECT count(*) FROM clean.bars").fetchall() == [(600,)]
    reader.close()
    done = maintain_lake(lake, keep_snapshots=A_MONTH * 2, now=datetime.now(UTC) + 2 * A_DAY)
    assert (done.deleted_files, done.expired_snapshots) == (12, 0)
    assert len(files(place)) == 1
    # The first one is from before there were tables.
    held = [len(rows_at(lake, snapshot)[0]) for snapshot in snapshots(lake)[1:]]
    assert held[:13] == [50 * i for i in range(13)]


def test_files_that_nobody_knows_are_deleted_when_no_writer_can_still_be_at_them(place, lake):
    fill(lake, days=2)
    obstore.put(data_store(place), "clean/bars/ducklake-left-behind.parquet", b"half a file")
    assert maintain_lake(lake).orphaned_files == 0
    assert len(files(place)) == 3
    done = maintain_lake(lake, keep_snapshots=A_MONTH * 2, now=datetime.now(UTC) + 2 * A_DAY)
    assert done.orphaned_files == 1
    assert len(files(place)) == 2
    assert len(rows_at(lake, lake.snapshot())[0]) == 100


def test_no_file_in_use_is_deleted_even_if_it_is_taken_for_one_that_nobody_knows(place, lake, monkeypatch):
    fill(lake, days=2)
    used = "SELECT path FROM __ducklake_metadata_lake.ducklake_data_file LIMIT 1"
    obstore.put(data_store(place), f"elsewhere/{lake.query(used).item().rpartition('/')[2]}", b"of the same name")
    with pytest.raises(RuntimeError, match="in use"):
        maintain_lake(lake, keep_snapshots=A_MONTH * 2, now=datetime.now(UTC) + 2 * A_DAY)
    assert len(files(place)) == 3


def test_a_merge_that_would_change_rows_is_rolled_back(lake, monkeypatch):
    fill(lake)
    before, seen = rows_at(lake, lake.snapshot()), []
    fingerprint = maintenance._fingerprint

    def different(connection, schema, table):
        seen.append(table)
        rows, total = fingerprint(connection, schema, table)
        return rows - seen.count(table) + 1, total

    monkeypatch.setattr(maintenance, "_fingerprint", different)
    done = maintain_lake(lake)
    assert done.merged_files == 0
    assert len(done.problems) == 1 and "makes 599 rows of 600" in done.problems[0]
    assert lake_size(lake).files == 12
    assert same(rows_at(lake, lake.snapshot()), before)


def test_every_kept_snapshot_holds_its_rows_through_many_changes_and_maintenances(lake):
    draw = random.Random(7)
    known = {}
    for version in range(1, 41):
        symbol, day = draw.choice("AB"), DAY + timedelta(days=draw.choice([0, 1, 2, 300]))
        # A few rows are kept in the catalog, more of them in a file.
        bars, told = draw.choice([0, 2, 9, 30, 200]), draw.choice([1, 12])
        coverage = pl.DataFrame(
            {"dataset": "sample_set", "symbol": symbol, "session": [day] * told, "present_bars": range(told)}
        )
        condition = "dataset = 'sample_set' AND symbol = ? AND session = ?"
        snapshot = lake.replace(
            [
                ("clean.bars", condition, [symbol, day], lake_rows(version, symbol, day, bars)),
                ("clean.coverage", condition, [symbol, day], coverage),
            ]
        )
        known[snapshot] = rows_at(lake, snapshot)
        if version % 8 == 0:
            # The lake's clock stands still, so maintenances of later days are done by looking ahead.
            keep = timedelta(0) if version == 16 else A_MONTH * 12
            done = maintain_lake(lake, keep, small_files=2, now=datetime.now(UTC) + 2 * A_DAY)
            assert done.problems == []
            known = {snapshot: known[snapshot] for snapshot in snapshots(lake) if snapshot in known}
            for snapshot in draw.sample(list(known), min(10, len(known))):
                assert same(rows_at(lake, snapshot), known[snapshot]), (version, snapshot)
    assert len(known) > 20


def test_rows_that_the_catalog_keeps_stay_there(place, lake):
    for version in range(12):
        replace_session(lake, version, "A", DAY, 3)
    known = {snapshot: rows_at(lake, snapshot) for snapshot in snapshots(lake)[1:]}
    maintain_lake(lake, A_MONTH * 12, small_files=1, now=datetime.now(UTC) + 2 * A_DAY)
    # Flushed into files, older snapshots would show rows that they never had.
    assert files(place) == []
    assert all(same(rows_at(lake, snapshot), rows) for snapshot, rows in known.items())


def test_writers_and_maintenances_at_once_lose_nothing(place, lake):
    fill(lake)
    together(maintain_at_once, [(place, name, 4) for name in ("writer1", "writer2", "maintenance1", "maintenance2")])
    bars, _ = rows_at(lake, lake.snapshot())
    assert len(bars.filter(pl.col("symbol") == "A")) == 600
    for name in ("writer1", "writer2"):
        assert dict(bars.filter(pl.col("symbol") == name).group_by("session").len().iter_rows()) == {
            DAY + timedelta(days=i): 40 for i in range(4)
        }


def test_a_killed_maintenance_changes_no_row(place, lake):
    fill(lake)
    draw = random.Random(3)
    for attempt in range(5):
        for i in range(12):
            replace_session(lake, attempt, "B", DAY + timedelta(days=i), 20)
        wanted = rows_at(lake, lake.snapshot())
        process = start(maintain_forever, place)
        time.sleep(draw.uniform(0.1, 0.8))
        process.kill()
        process.join()
        assert same(rows_at(lake, lake.snapshot()), wanted)
    maintain_lake(lake, timedelta(0), now=in_a_month())
    assert same(rows_at(lake, lake.snapshot()), wanted)
    assert {path.rpartition("/")[2] for path in files(place)} == current_names(lake)


def test_a_table_that_cannot_be_merged_is_told_and_the_others_are_done(lake, monkeypatch):
    fill(lake)
    for i in range(12):
        rows = pl.DataFrame({"dataset": "d", "symbol": "A", "session": [DAY + timedelta(days=i)] * 20})
        lake.replace([("clean.quarantine", "false", [], rows)])
    compact = maintenance._compact

    def failing(lake, function, schema, table, options):
        if table == "bars":
            raise duckdb.TransactionException("Transaction conflict")
        return compact(lake, function, schema, table, options)

    monkeypatch.setattr(maintenance, "_compact", failing)
    done = maintain_lake(lake)
    assert done.problems == ["clean.bars: Transaction conflict"]
    assert done.merged_files == 12
