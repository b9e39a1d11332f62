"""What the schemas accept and reject, and how breaches are counted per partition."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from quantlytic_assets.checks.schemas import FAILURES_SCHEMA, failures
from quantlytic_assets.schemas.clean import BARS, COVERAGE, QUARANTINE

DAYS = [date(2025, 7, 2), date(2025, 7, 3)]


def keyed(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(pl.col("session").dt.to_string("%Y-%m-%d").alias("partition"))


def bars() -> pl.DataFrame:
    """Ten good bars on each of two days, an hour apart."""
    rows = []
    for day in DAYS:
        for i in range(10):
            start = datetime(day.year, day.month, day.day, 10 + i, tzinfo=UTC)
            end = start + timedelta(hours=1)
            prices = {"open": 100.0, "high": 101.0, "low": 99.0, "close": 100.5}
            rows.append(
                {"dataset": "d", "symbol": "A", "session": day, "open_time": start, "close_time": end, **prices}
                | {"volume": 0.0, "vendor": "v", "fetched_at": end, "adjustment": "none", "available_at": end}
                | {"flags": ["zero_volume"] if i else []}
            )
    return pl.DataFrame(rows, schema=BARS.polars)


def broken(column: str, value: object, rows: list[int]) -> pl.DataFrame:
    frame = bars().with_row_index("row")
    changed = pl.when(pl.col("row").is_in(rows)).then(pl.lit(value, BARS.polars[column])).otherwise(pl.col(column))
    return keyed(frame.with_columns(changed.alias(column)).drop("row"))


def test_good_bars_breach_nothing():
    found = failures(keyed(bars()), BARS)
    assert found.is_empty() and found.schema == FAILURES_SCHEMA
    assert failures(keyed(bars().clear()), BARS).is_empty()


@pytest.mark.parametrize(
    ("column", "value", "check"),
    [
        ("open", -1.0, "open is finite and above 0"),
        ("low", float("nan"), "low is finite and above 0"),
        ("high", float("inf"), "high is finite and above 0"),
        ("close", 0.0, "close is finite and above 0"),
        ("volume", -1.0, "volume is finite and at least 0"),
        ("high", 100.2, "high is not below open or close"),
        ("low", 100.2, "low is not above open or close"),
        ("close_time", datetime(2025, 7, 1, tzinfo=UTC), "open_time is before close_time"),
        ("available_at", datetime(2025, 7, 1, tzinfo=UTC), "available_at is not before close_time"),
        ("adjustment", "dividend", "adjustment is a known one"),
        ("close", None, "close is not null"),
        ("vendor", None, "vendor is not null"),
    ],
)
def test_a_breach_is_counted_in_its_partition_with_an_example(column, value, check):
    found = failures(broken(column, value, [12, 15]), BARS).filter(check=check)
    assert found.select("partition", "failures").rows() == [("2025-07-03", 2)]
    example = json.loads(found["example"].item())
    assert example["symbol"] == "A" and example["session"] == "2025-07-03"


def test_flags_must_be_known_and_not_null():
    odd = keyed(bars().with_columns(flags=pl.lit(["odd"])))
    assert failures(odd, BARS).select("check", "failures").unique().rows() == [("flags are known ones", 10)]
    none = keyed(bars().with_columns(flags=pl.lit(None, pl.List(pl.String))))
    assert set(failures(none, BARS)["check"]) == {"flags is not null"}


def test_a_second_bar_for_the_same_time_is_a_breach_and_another_dataset_is_not():
    twice = keyed(pl.concat([bars(), bars().head(1)]))
    assert failures(twice, BARS).select("partition", "check", "failures").rows() == [
        ("2025-07-02", "one row per dataset, symbol, open_time", 2)
    ]
    other = keyed(pl.concat([bars(), bars().with_columns(dataset=pl.lit("e"))]))
    assert failures(other, BARS).is_empty()


def test_vwap_and_trade_count_may_be_null():
    assert bars()["vwap"].null_count() == 20
    assert failures(keyed(bars()), BARS).is_empty()


@pytest.mark.parametrize(
    ("frame", "word"),
    [
        (keyed(bars()).drop("close"), "close"),
        (keyed(bars()).with_columns(pl.col("open").cast(pl.String)), "open"),
    ],
)
def test_a_missing_or_mistyped_column_is_told_for_every_partition(frame, word):
    found = failures(frame, BARS)
    assert found["partition"].to_list() == ["2025-07-02", "2025-07-03"]
    assert set(found["check"]) == {"columns and types"}
    assert f"'{word}'" in found["example"][0] and "\n" not in found["example"][0]


def covered(**changes) -> pl.DataFrame:
    start = datetime(2025, 7, 2, 14, 0, tzinfo=UTC)
    row = {
        "dataset": "d",
        "symbol": "A",
        "session": DAYS[0],
        "expected_bars": 10,
        "present_bars": 8,
        "missing_bars": 2,
        "cause": "outage",
        "missing_ranges": [{"start": start, "end": start + timedelta(minutes=2), "cause": "outage"}],
        "attempts": 0,
        "checked_at": start,
    }
    return keyed(pl.DataFrame([row | changes], schema=COVERAGE.polars))


def test_coverage_adds_up_and_gives_each_hole_a_known_cause():
    assert failures(covered(), COVERAGE).is_empty()
    complete = {"present_bars": 10, "missing_bars": 0, "cause": None, "missing_ranges": []}
    assert failures(covered(**complete), COVERAGE).is_empty()
    assert failures(covered(missing_bars=3), COVERAGE)["check"].to_list() == ["expected is present and missing"]
    assert failures(covered(cause="weather"), COVERAGE)["check"].to_list() == ["cause is a known one"]
    assert failures(covered(cause=None), COVERAGE)["check"].to_list() == ["a cause where bars are missing only"]
    assert failures(covered(missing_ranges=[]), COVERAGE)["check"].to_list() == ["ranges where bars are missing only"]
    assert failures(covered(attempts=-1), COVERAGE)["check"].to_list() == ["attempts is at least 0"]
    twice = pl.concat([covered(), covered()])
    assert failures(twice, COVERAGE)["check"].to_list() == ["one row per dataset, symbol, session"]


def test_quarantine_knows_at_least_reason_text_and_source():
    row = {"dataset": "d", "symbol": None, "session": DAYS[0], "open_time": None, "reason": "malformed: not JSON"}
    row |= {"raw": "{", "source_object": "archive/refused/a", "source_row": None}
    frame = keyed(pl.DataFrame([row], schema=QUARANTINE.polars))
    assert failures(frame, QUARANTINE).is_empty()
    assert failures(frame.with_columns(reason=pl.lit("")), QUARANTINE)["check"].to_list() == ["reason is not empty"]
    for name in ("raw", "source_object", "reason"):
        gone = frame.with_columns(pl.lit(None, pl.String).alias(name))
        assert failures(gone, QUARANTINE)["check"].to_list() == [f"{name} is not null"]
