"""The lake's figures: bars, the newest, holes by cause, sizes of tables of the same name."""

from datetime import date

import polars as pl

from quantlytic_assets.market_data.bars import CLEAN_SCHEMA, COVERAGE_SCHEMA
from quantlytic_assets.observability.lake import size_metrics, table_metrics
from quantlytic_tests.frames import utc
from quantlytic_tests.observability.figures import figures


def rows(schema, **columns):
    """Rows with these columns and null everywhere else."""
    given = pl.DataFrame(columns)
    return given.select(
        pl.col(name).cast(kind) if name in given.columns else pl.lit(None, dtype=kind).alias(name)
        for name, kind in schema.items()
    )


def test_bars_newest_and_holes_of_the_datasets_asked_for(place):
    lake = place.resources.lake
    bars = rows(
        CLEAN_SCHEMA,
        dataset=["one", "one", "two", "gone"],
        symbol=["A", "A", "A", "A"],
        session=[date(2025, 5, 10)] * 4,
        close_time=[utc("2025-05-10T10:01"), utc("2025-05-10T10:02"), utc("2025-05-10T09:00"), utc("2025-05-10T09:00")],
    )
    coverage = rows(
        COVERAGE_SCHEMA,
        dataset=["one", "one", "one", "two", "gone"],
        symbol=list("ABCDE"),
        missing_bars=[3, 4, 5, 0, 9],
        cause=["outage", "outage", None, None, "outage"],
    )
    lake.replace([("clean.bars", "true", [], bars), ("clean.coverage", "true", [], coverage)])
    found = figures(table_metrics(lake, ["one", "two", "empty"]))
    assert found["quantlytic_clean_bars"] == {("one",): 2, ("two",): 1, ("empty",): 0}
    assert found["quantlytic_newest_bar_timestamp_seconds"] == {
        ("one",): utc("2025-05-10T10:02").timestamp(),
        ("two",): utc("2025-05-10T09:00").timestamp(),
    }
    assert found["quantlytic_hole_bars"] == {("one", "outage"): 7, ("one", "unknown"): 5}


def test_tables_of_one_name_in_two_schemas_are_told_apart(place):
    lake = place.resources.lake
    lake.connect().execute("CREATE TABLE features.bars AS SELECT range AS a FROM range(50000)")
    found = figures(size_metrics(lake))
    assert found["quantlytic_lake_files"][("clean.bars",)] == 0 and found["quantlytic_lake_bytes"][("clean.bars",)] == 0
    assert found["quantlytic_lake_files"][("features.bars",)] == 1
    assert found["quantlytic_lake_bytes"][("features.bars",)] > 1000
