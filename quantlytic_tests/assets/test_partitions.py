"""Dagster's partitions against the keys that are computed without it, and from a step to the partitions before it."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from quantlytic_assets.assets.partitions import definition, model_definition, partitions_before, strategy_definition
from quantlytic_assets.calendars.partitions import known_keys, model_steps, trading_keys
from quantlytic_assets.settings import CHECKOUT
from quantlytic_assets.universe.loading import load_universe
from quantlytic_tests.calendars.test_partitions import make_strategy
from quantlytic_tests.frames import make_dataset, utc

SHIPPED = load_universe(CHECKOUT / "universe.yaml")
# A closed range seen from long after, from within and from before it; weekends, holidays, the hour from which a
# session is there, ends of months and years, and the moments beside each.
MOMENTS = [
    utc(moment)
    for moment in (
        "2026-06-01T00:00", "2025-08-31T23:59:59", "2025-07-05T12:00", "2025-07-06T23:59", "2025-07-07T09:59:59",
        "2025-07-07T10:00", "2025-07-07T10:00:01", "2025-07-04T10:00", "2025-07-03T10:00", "2025-06-30T23:59:59",
        "2025-07-01T00:00", "2025-06-04T10:00", "2025-06-05T10:00", "2025-05-31T23:59", "2025-05-10T00:00",
        "2025-05-09T23:59", "2025-05-09T00:00", "2025-05-08T23:59", "2019-02-22T21:00", "2018-12-31T09:59",
        "2018-12-31T10:00", "2019-01-01T00:00", "2016-02-29T12:00", "2011-01-01T00:00", "2010-12-31T23:59",
        "2010-12-31T09:59", "2009-01-01T00:00", "2008-12-31T12:00", "2008-11-30T12:00", "2008-10-30T12:00",
    )
]  # fmt: skip


def all_datasets():
    intraday = SHIPPED.datasets["equities_5m"]
    yield from SHIPPED.datasets.values()
    for one in SHIPPED.datasets.values():
        yield replace(one, name=f"{one.name}_open", last_session=None)
    yield replace(intraday, name="intraday_by_month", partition="month")
    yield replace(
        SHIPPED.datasets["equities_1d"], name="daily_by_session", partition="session", first_session=date(2018, 6, 1)
    )
    for calendar in ("XTKS", "XBOM", "XSAU"):
        yield replace(intraday, name=f"{calendar}_open", calendar=calendar, last_session=None)
    yield replace(intraday, name="from_a_weekend", first_session=date(2025, 6, 7))


@pytest.mark.parametrize("dataset", all_datasets(), ids=lambda dataset: dataset.name)
def test_keys_without_dagster_are_dagster_s_at_any_moment(dataset):
    defined = definition(dataset)
    for now in [*MOMENTS, datetime.now(UTC)]:
        assert known_keys(dataset, now) == list(defined.get_partition_keys(current_time=now)), now
    assert known_keys(dataset) == list(defined.get_partition_keys())


@pytest.mark.parametrize("retrain", ["yearly", "monthly"])
@pytest.mark.parametrize("last", [date(2019, 2, 22), None])
def test_steps_and_trading_keys_without_dagster_are_dagster_s(retrain, last):
    daily = replace(SHIPPED.datasets["equities_1d"], last_session=last)
    for strategy in [make_strategy(retrain), *SHIPPED.models.values()]:
        steps, trading = model_definition(daily, strategy), strategy_definition(daily, strategy)
        for now in MOMENTS:
            assert model_steps(daily, strategy, now) == list(steps.get_partition_keys(current_time=now)), now
            assert trading_keys(daily, strategy, now) == list(trading.get_partition_keys(current_time=now)), now


@pytest.mark.parametrize("calendar", ["XNYS", "24/7"])
def test_steps_of_intraday_datasets_are_dagster_s(calendar):
    minutes = make_dataset(calendar, "5m", first=date(2025, 1, 2), last=None)
    strategy = make_strategy("monthly", min_train=5, interval="5m")
    steps = model_definition(minutes, strategy)
    for now in MOMENTS:
        assert model_steps(minutes, strategy, now) == list(steps.get_partition_keys(current_time=now)), now


def test_dagster_s_window_of_a_session_is_one_day():
    window = definition(make_dataset()).time_window_for_partition_key("2025-03-07")
    assert (window.end - window.start) == timedelta(days=1)


@pytest.mark.parametrize("retrain", ["yearly", "monthly"])
@pytest.mark.parametrize("partition", ["month", "session"])
def test_a_model_is_made_of_all_partitions_before_its_step(retrain, partition):
    dataset = make_dataset(interval="1d", partition=partition, first=date(2015, 3, 16), last=date(2018, 2, 15))
    strategy = make_strategy(retrain)
    steps, bars = model_definition(dataset, strategy), definition(dataset)
    for step in (steps.get_partition_keys()[0], steps.get_partition_keys()[-1]):
        above = partitions_before(dataset, strategy).get_upstream_mapped_partitions_result_for_partitions(
            steps.subset_with_partition_keys([step]), steps, bars
        )
        assert sorted(above.partitions_subset.get_partition_keys()) == [k for k in known_keys(dataset) if k < step]
