"""Rows that become part of a table as files: in their partitions, with all of its columns, kept up as others are."""

import os
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from quantlytic_assets.storage.lake_files import NewFiles
from quantlytic_assets.storage.maintenance import lake_size, maintain_lake
from quantlytic_tests.storage.processes import lake_rows

DAY = date(2025, 3, 3)
CATALOG = "__ducklake_metadata_lake"


@pytest.fixture
def lake(place):
    os.environ.update(place.resources.lake.dbt_environment())
    return place.resources.lake


def written(lake, *frames) -> NewFiles:
    files = NewFiles(lake.connect(), "clean.bars", ("dataset", "year(session)"))
    files.write(frames)
    return files


def take(lake, files) -> None:
    with lake.transaction() as connection:
        connection.execute(files.insertion(connection))


def bars(lake) -> pl.DataFrame:
    return lake.query("SELECT * FROM clean.bars ORDER BY session, open_time")


def test_rows_lie_in_the_files_of_their_partitions_and_are_what_was_given(lake):
    rows = pl.concat([lake_rows(1, "A", date(2024, 12, 31), 5), lake_rows(1, "A", DAY, 7)])
    take(lake, written(lake, rows, rows.clear(), lake_rows(1, "A", DAY + timedelta(days=1), 3)))
    assert bars(lake).select(rows.columns).equals(pl.concat([rows, lake_rows(1, "A", DAY + timedelta(days=1), 3)]))
    files = lake.query(
        f"SELECT record_count, path_is_relative::BOOLEAN AS moves_along, "
        "list(partition_value ORDER BY partition_key_index) AS parts "
        f"FROM {CATALOG}.ducklake_data_file JOIN {CATALOG}.ducklake_file_partition_value USING (data_file_id) "
        "GROUP BY ALL ORDER BY 1"
    )
    assert files.rows() == [
        (3, True, ["sample_set", "2025"]),
        (5, True, ["sample_set", "2024"]),
        (7, True, ["sample_set", "2025"]),
    ]


def test_a_column_that_the_rows_lack_is_null_in_them(lake):
    take(lake, written(lake, lake_rows(1, "A", DAY, 5).with_columns(vwap=pl.lit(1.5))))
    take(lake, written(lake, lake_rows(1, "B", DAY, 7)))
    found = lake.query("SELECT symbol, count(*) FROM clean.bars WHERE vwap IS NULL GROUP BY ALL")
    assert found.rows() == [("B", 7)]
    assert lake.query("SELECT count(*) FROM clean.bars WHERE vwap IS NOT NULL").item() == 5


def test_a_column_that_the_table_gets_while_the_rows_are_made_is_null_in_them(lake):
    files = written(lake, lake_rows(1, "A", DAY, 5))
    with lake.transaction() as connection:
        connection.execute("ALTER TABLE clean.bars ADD COLUMN of_others DOUBLE")
        connection.execute("INSERT INTO clean.bars BY NAME SELECT 'other' AS dataset, 1.0 AS of_others")
    take(lake, files)
    found = lake.query("SELECT dataset, count(*) FROM clean.bars WHERE of_others IS NULL GROUP BY ALL")
    assert found.rows() == [("sample_set", 5)]


def test_files_are_merged_with_those_of_other_writers(lake):
    for number in range(6):
        take(lake, written(lake, lake_rows(1, "A", DAY + timedelta(days=number), 50)))
        later = lake_rows(1, "A", DAY + timedelta(days=10 + number), 50)
        lake.replace([("clean.bars", "false", [], later)])
    with lake.transaction() as connection:
        connection.execute(f"DELETE FROM clean.bars WHERE session = DATE '{DAY}' AND minute(open_time) % 2 = 0")
    before = bars(lake)
    done = maintain_lake(lake)
    assert (done.merged_files > 10, done.problems) == (True, [])
    assert bars(lake).equals(before)


def test_files_that_were_never_taken_are_deleted_by_upkeep(lake):
    take(lake, written(lake, lake_rows(1, "A", DAY, 5)))
    written(lake, lake_rows(1, "B", DAY, 5))
    files = written(lake, lake_rows(1, "C", DAY, 5))
    with pytest.raises(ZeroDivisionError), lake.transaction() as connection:
        connection.execute(files.insertion(connection))
        raise ZeroDivisionError
    assert maintain_lake(lake).orphaned_files == 0
    assert maintain_lake(lake, now=datetime.now(UTC) + timedelta(days=2)).orphaned_files == 2
    assert bars(lake)["symbol"].to_list() == ["A"] * 5 and lake_size(lake).files == 1
