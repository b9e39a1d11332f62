"""Cleaning by partition: neighbours and late actions leave the same rows in whatever order things are done."""

from __future__ import annotations

from datetime import UTC, date, datetime

import polars as pl
import pytest

from quantlytic_assets.calendars.partitions import known_keys, windows
from quantlytic_assets.market_data.actions.reconcile import ACTIONS_SCHEMA
from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.services.clean import Cleaner
from quantlytic_tests.frames import make_dataset
from quantlytic_tests.market_data.recorded_prices import lean_bars
from quantlytic_tests.storage.places import opened

FETCHED = datetime(2020, 1, 2, tzinfo=UTC)
DATASET = make_dataset(interval="1d", first=date(2014, 7, 1), last=date(2014, 10, 31), symbols=("AAPL",), name="daily")
MONTHS = ("2014-07-01", "2014-08-01", "2014-09-01", "2014-10-01")
TABLES = ("clean.bars", "clean.repairs", "clean.price_levels", "clean.corporate_actions", "clean.split_factors")


def land(resources, factor_of_august: float = 1.0) -> None:
    bars = lean_bars("AAPL", first=date(2014, 7, 1), last=date(2014, 10, 31))
    off = pl.when(pl.col("session").dt.month() == 8).then(factor_of_august).otherwise(1.0)
    bars = bars.with_columns(
        *(pl.col(name) * off for name in ("open", "high", "low", "close")),
        pl.lit("file").alias("vendor"),
        pl.lit(FETCHED).cast(RAW_SCHEMA["fetched_at"]).alias("fetched_at"),
    )
    lander = resources.lander(DATASET)
    lander.publish(bars.select(RAW_SCHEMA.names()))
    lander.land()


def split(resources, session: date, value: float) -> None:
    row = {"symbol": "AAPL", "session": session, "kind": "split", "value": value, "adjustment": "none"}
    row |= {"vendor": "import", "recorded_at": FETCHED}
    resources.actions.record(DATASET.name, pl.DataFrame([row], schema=ACTIONS_SCHEMA))


def clean(resources, *months: str) -> list[str]:
    """Clean months as one run; the months that were cleaned, the others among them too."""
    cleaner, done = Cleaner(resources, DATASET), []
    cleaner.follow_actions(lambda key, _: done.append(key))
    for window in windows(DATASET, months):
        done += cleaner.clean(window)
    return done


def rows(resources) -> list[list[tuple]]:
    return [resources.lake.query(f"SELECT * FROM {table} ORDER BY ALL").rows() for table in TABLES]


@pytest.fixture
def resources(tmp_path):
    with opened("embedded", tmp_path) as place:
        yield place.resources


def test_a_month_in_another_unit_is_found_in_whatever_order_months_are_made(resources):
    assert tuple(known_keys(DATASET)) == MONTHS
    land(resources, 100.0)
    clean(resources, *MONTHS)
    together = rows(resources)
    flagged = resources.lake.query("SELECT DISTINCT monthname(session), flags FROM clean.bars WHERE flags <> []").rows()
    assert flagged == [("August", ["times_100"])]
    repaired = resources.lake.query("SELECT count(*), max(close), bool_and(uses_later_bars) FROM clean.repairs").row(0)
    assert repaired[0] == 21 and repaired[1] < 110 and repaired[2]
    for order in [(1, 3, 0, 2), (3, 2, 1, 0)]:
        resources.lake.replace([(table, "true", [], pl.DataFrame()) for table in TABLES])
        for month in order:
            clean(resources, MONTHS[month])
        assert rows(resources) == together, order


def test_a_neighbour_that_comes_later_has_the_month_cleaned_again(resources):
    land(resources, 100.0)
    assert clean(resources, *MONTHS[1:2]) == [MONTHS[1]]
    count = "SELECT count(*) FROM clean.repairs"
    assert resources.lake.query(count).item() == 0, "alone nobody can tell"
    assert clean(resources, MONTHS[0]) == [MONTHS[0], MONTHS[1]]
    assert resources.lake.query(count).item() == 21
    # What is known already has nothing made again.
    assert clean(resources, MONTHS[2]) == [MONTHS[2]]


def test_a_run_that_ends_before_the_neighbour_is_done_is_made_good_by_the_next(resources, monkeypatch):
    land(resources, 100.0)
    clean(resources, MONTHS[1])
    cleaner = Cleaner(resources, DATASET)
    (window,) = windows(DATASET, [MONTHS[0]])
    monkeypatch.setattr(cleaner, "_again", lambda _: pytest.fail("killed"))
    with pytest.raises(BaseException, match="killed"):
        cleaner.clean(window)
    assert clean(resources, MONTHS[0]) == [MONTHS[0], MONTHS[1]]


def test_bars_that_an_action_concerns_are_cleaned_again_once_whoever_ended_before(resources):
    land(resources)
    clean(resources, *MONTHS)
    before = rows(resources)
    split(resources, date(2014, 8, 4), 2.0)

    def killed(key: str, _: object) -> None:
        raise KeyboardInterrupt(key)

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            Cleaner(resources, DATASET).follow_actions(killed)
    done: list[str] = []
    followed = Cleaner(resources, DATASET).follow_actions(lambda key, _: done.append(key))
    assert followed.since == date(2014, 7, 28) and set(done) == set(MONTHS)
    # A split that the prices do not show: they are as if it were missing.
    assert rows(resources) != before
    flags = resources.lake.query("SELECT max(session) FROM clean.bars WHERE list_contains(flags, 'missing_split')")
    assert flags.item() == date(2014, 8, 1)
    assert clean(resources, MONTHS[3]) == [MONTHS[3]], "nothing is new any more"
    split(resources, date(2014, 8, 4), 1.0)
    clean(resources, MONTHS[3])
    assert rows(resources)[:2] == before[:2], "taken back"
