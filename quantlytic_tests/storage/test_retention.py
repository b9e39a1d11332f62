"""What a dataset keeps no longer leaves the lake, and the archive where that is asked for, and nothing else does."""

import os
import signal
from datetime import date, timedelta

import obstore
import polars as pl
import pytest

from quantlytic_assets.storage.retention import ArchiveExpired, expire_archive, expire_lake
from quantlytic_tests.storage.compacting import DATASET, all_rows, compact, fill, land_segment, watched
from quantlytic_tests.storage.processes import start

DAYS = ("2025-05-08", "2025-05-09", "2025-05-10")
EDGE = date(2025, 5, 10)


def put_sessions(lake, table, dataset=DATASET, **columns):
    days = [date.fromisoformat(day) for day in DAYS] + [date(2024, 2, 29)]
    rows = pl.DataFrame({"dataset": dataset, "session": days, "symbol": "A"}).with_columns(
        pl.lit(value).alias(name) for name, value in columns.items()
    )
    lake.replace([(table, "dataset = ? AND session < ?", [dataset, date(1900, 1, 1)], rows)])


def sessions(lake, table, dataset=DATASET):
    found = lake.query(f"SELECT session FROM {table} WHERE dataset = ? ORDER BY ALL", [dataset])["session"]
    return [day.isoformat() for day in found]


def test_rows_of_expired_sessions_leave_every_table_of_the_dataset(place):
    lake = place.resources.lake
    with lake.transaction() as connection:
        connection.execute("CREATE TABLE features.something (dataset VARCHAR, session DATE, symbol VARCHAR)")
        connection.execute("CREATE TABLE features.without_sessions (dataset VARCHAR, symbol VARCHAR)")
        connection.execute("CREATE VIEW features.shown AS SELECT dataset, session FROM clean.bars")
    for table in ("clean.bars", "clean.coverage", "features.something"):
        put_sessions(lake, table)
        put_sessions(lake, table, dataset="another")
    put_sessions(lake, "clean.quarantine", source_object="sample_set/partition=2025-05-08/a.parquet", reason="bad")
    put_sessions(lake, "clean.quarantine", source_object="sample_set/refused/a.parquet", reason="no bar")
    put_sessions(lake, "clean.quarantine", source_object="sample_set/actions/a.parquet", reason="not positive")
    put_sessions(lake, "clean.corporate_actions", kind="split", value=4.0)
    before = lake.snapshot()
    deleted = expire_lake(lake, DATASET, EDGE)
    assert deleted == dict.fromkeys(("clean.bars", "clean.coverage", "clean.quarantine", "features.something"), 3)
    for table in ("clean.bars", "clean.coverage", "features.something"):
        assert sessions(lake, table) == ["2025-05-10"]
        assert len(sessions(lake, table, "another")) == 4
    # What is made of the whole archive would come back.
    left = lake.query("SELECT source_object, count(*) AS n FROM clean.quarantine GROUP BY 1 ORDER BY 1")
    assert left.rows() == [
        ("sample_set/actions/a.parquet", 4),
        ("sample_set/partition=2025-05-08/a.parquet", 1),
        ("sample_set/refused/a.parquet", 4),
    ]
    assert len(sessions(lake, "clean.corporate_actions")) == 4
    # One transaction; and nothing to do makes none.
    assert lake.snapshot() == before + 1
    assert expire_lake(lake, DATASET, EDGE) == {} and lake.snapshot() == before + 1


def expire(place):
    return expire_archive(place.resources.archive, DATASET, EDGE)


def test_expired_partitions_leave_the_archive_and_the_others_stay_as_they_are(place):
    archive = place.resources.archive
    fill(archive, DAYS)
    compact(archive)
    land_segment(archive, "2025-05-09", 9)
    kept = all_rows(archive).filter(pl.col("source_object").str.contains(DAYS[-1]))
    stored = [one for one in archive.objects(DATASET) if one.partition < EDGE.isoformat()]
    done = expire(place)
    assert done.partitions == 2 and done.objects >= len(stored) + 2 and done.bytes > sum(one.size for one in stored)
    assert {one.partition for one in archive.objects(DATASET)} == {DAYS[-1]}
    assert all_rows(archive).equals(kept)
    assert expire(place) == ArchiveExpired()
    # What was landed stays known.
    assert len(archive.claims(DATASET, "bars.sample_set", 0)) > 0


def expire_and_die(place, step, before):
    count = 0

    def die(what, path, done):
        nonlocal count
        count += not done
        if count == step and done is not before:
            os.kill(os.getpid(), signal.SIGKILL)

    with watched(die):
        expire(place)


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_killed_at_any_moment_it_leaves_no_damage_and_is_gone_on_with(place, step):
    archive = place.resources.archive
    fill(archive, DAYS)
    # Two manifests in a folder, the older of which names an object that may be gone.
    compact(archive, grace=timedelta(hours=1))
    for day in DAYS:
        land_segment(archive, day, 20 + int(day[-1]))
    compact(archive, grace=timedelta(hours=1))
    kept = [one for one in archive.objects(DATASET) if one.partition == DAYS[-1]]
    dying = start(expire_and_die, place, step, step % 2 == 0)
    dying.join(60)
    assert dying.exitcode == -signal.SIGKILL
    # Whoever reads now sees the kept partition as it is, and no object that is gone.
    assert [one for one in archive.objects(DATASET) if one.partition == DAYS[-1]] == kept
    archive.read(archive.objects(DATASET))
    expire(place)
    assert archive.objects(DATASET) == kept
    left = [item["path"] for batch in obstore.list(archive.store, prefix=f"{DATASET}/partition=") for item in batch]
    assert all(DAYS[-1] in path for path in left)
