"""Bars and actions of an archive through the assets: flags, repairs, rejected reports, and vendors compared."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime

import dagster as dg
import polars as pl
import pytest

from quantlytic_assets.assets.clean_bars import clean_bars_asset
from quantlytic_assets.assets.corporate_actions import corporate_actions_asset
from quantlytic_assets.assets.partitions import definition
from quantlytic_assets.automation.conditions import follow_hourly
from quantlytic_assets.checks.vendor_checks import vendor_checks
from quantlytic_assets.dagster_internals import range_tags
from quantlytic_assets.market_data.actions.reconcile import ACTIONS_SCHEMA
from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.universe.models import Comparison, Dataset, Instrument
from quantlytic_tests.frames import make_dataset
from quantlytic_tests.market_data.recorded_prices import lean_bars
from quantlytic_tests.storage.places import opened

EARLY, LATE = datetime(2020, 1, 2, tzinfo=UTC), datetime(2020, 1, 3, tzinfo=UTC)
MONTHS = ("2014-06-01", "2014-07-01")


def apple(vendor: str = "yahoo", fetched_at: datetime = LATE, **changes: pl.Expr) -> pl.DataFrame:
    """Raw daily bars of June and July 2014 as a vendor serves them."""
    bars = lean_bars("AAPL", first=date(2014, 6, 2), last=date(2014, 7, 31)).with_columns(
        pl.lit(vendor).alias("vendor"), pl.lit(fetched_at).cast(RAW_SCHEMA["fetched_at"]).alias("fetched_at")
    )
    return bars.with_columns(**changes).select(RAW_SCHEMA.names())


def times(day: date, factor: float, *names: str) -> dict[str, pl.Expr]:
    return {name: pl.when(pl.col("session") == day).then(pl.col(name) * factor).otherwise(name) for name in names}


def told(**changes: object) -> pl.DataFrame:
    row = {"symbol": "AAPL", "session": date(2014, 6, 9), "kind": "split", "value": 7.0, "adjustment": "none"}
    return pl.DataFrame([row | {"vendor": "yahoo", "recorded_at": LATE} | changes], schema=ACTIONS_SCHEMA)


def daily(name: str = "daily", **changes: object) -> Dataset:
    return make_dataset(
        interval="1d", first=date(2014, 6, 2), last=date(2014, 7, 31), symbols=("AAPL",), name=name, **changes
    )


@pytest.fixture
def place(tmp_path):
    with opened("embedded", tmp_path) as found:
        yield found


@pytest.fixture
def run(place):
    """Lands bars, then materializes a dataset's clean bars and actions with their checks, as a rule for both months."""
    with dg.DagsterInstance.ephemeral() as instance:

        def materialize(dataset: Dataset, *bars: pl.DataFrame, actions: pl.DataFrame | None = None, months=MONTHS):
            lander = place.resources.lander(dataset)
            for frame in bars:
                lander.publish(frame)
            lander.land()
            if actions is not None:
                place.resources.actions.record(dataset.name, actions)
            defined = definition(dataset)
            common = {"partitions_def": defined, "backfill_policy": dg.BackfillPolicy.multi_run(10)}
            job = dg.define_asset_job("all", partitions_def=defined, executor_def=dg.in_process_executor)
            definitions = dg.Definitions(
                assets=[clean_bars_asset(dataset, common), corporate_actions_asset(dataset, {})],
                asset_checks=vendor_checks(dataset, defined),
                jobs=[job],
                resources={"quantlytic": dg.ResourceDefinition.hardcoded_resource(place.resources)},
            )
            tags = range_tags(months[0], months[-1])
            return definitions.resolve_job_def("all").execute_in_process(instance=instance, tags=tags)

        yield materialize


def evaluations(result) -> dict[str | None, dg.AssetCheckEvaluation]:
    """vendors_agree's evaluation of each partition, and the run's own under None."""
    kind = dg.DagsterEventType.ASSET_CHECK_EVALUATION
    found = [event.event_specific_data for event in result.all_events if event.event_type == kind]
    return {one.partition: one for one in found if one.check_name == "vendors_agree"}


def test_a_known_split_that_a_bar_lacks_is_flagged_as_served_and_repaired_beside(run, place):
    unsplit = times(date(2014, 6, 9), 7, "open", "high", "low", "close")
    result = run(daily(), apple(**unsplit), actions=told())
    lake = place.resources.lake
    flagged = lake.query("SELECT session, flags, close FROM clean.bars WHERE len(flags) > 0 ORDER BY session")
    days = [(date(2014, 6, 9), ["jump", "missing_split"]), (date(2014, 6, 10), ["jump"])]
    assert flagged.select("session", "flags").rows() == days
    repair = lake.query("SELECT * FROM clean.repairs").row(0, named=True)
    assert (repair["defect"], repair["close"]) == ("missing_split", pytest.approx(flagged["close"][0] / 7))
    june = next(
        event.materialization
        for event in result.get_asset_materialization_events()
        if event.asset_key.path[-1] == "clean_bars" and event.partition == MONTHS[0]
    )
    assert june.metadata["repairs"].value == 1
    # Served right, the bar is right and nothing is left of the repair.
    run(daily(), apple(fetched_at=datetime(2020, 2, 1, tzinfo=UTC)))
    assert lake.query("SELECT * FROM clean.repairs").is_empty()
    assert lake.query("SELECT * FROM clean.bars WHERE len(flags) > 0").is_empty()


def cleaned_months(result) -> list[str]:
    events = result.get_asset_materialization_events()
    # A partition may be cleaned for a split first, and once more when its neighbour shows that it is off by it.
    return list(dict.fromkeys(event.partition for event in events if event.asset_key.path[-1] == "clean_bars"))


@pytest.mark.parametrize(
    ("adjustment", "day", "months"),
    [
        # Prices of June had been adjusted by the vendor for a split that nobody told until July's bars came.
        ("split", date(2014, 7, 28), [MONTHS[0], MONTHS[1]]),
        # The first week of July is near enough to count in the flags of June's last days.
        ("none", date(2014, 7, 3), [MONTHS[0], MONTHS[1]]),
        # The prices do not show it, so that all bars before it are taken to lack it, as far as neighbours reach.
        ("none", date(2014, 7, 28), [MONTHS[0], MONTHS[1]]),
        # One that changes nothing before its own month.
        ("none", date(2014, 9, 30), [MONTHS[1]]),
    ],
)
def test_a_split_that_is_told_late_has_earlier_partitions_cleaned_again(run, place, adjustment, day, months):
    bars = apple(adjustment=pl.lit(adjustment))
    assert cleaned_months(run(daily(), bars, months=MONTHS[:1])) == [MONTHS[0]]
    late = told(session=day, value=1.6)
    assert cleaned_months(run(daily(), actions=late, months=MONTHS[1:])) == months
    assert place.resources.lake.query("SELECT max(shares) FROM clean.split_factors").item() == 1.6
    # Nothing is new any more.
    assert cleaned_months(run(daily(), months=MONTHS[1:])) == [MONTHS[1]]


def test_rejected_reports_stay_in_the_quarantine_when_bars_are_cleaned_again(run, place):
    dataset = daily()
    run(dataset, apple(), actions=pl.concat([told(), told(value=-1.0, session=date(2014, 7, 1))]))
    rows = "SELECT symbol, session, reason, source_object FROM clean.quarantine"
    (rejected,) = place.resources.lake.query(rows).rows()
    assert rejected[:3] == ("AAPL", date(2014, 7, 1), "bad_value") and "/actions/" in rejected[3]
    run(dataset)
    assert place.resources.lake.query(rows).rows() == [rejected]
    assert place.resources.lake.query("SELECT value FROM clean.corporate_actions").rows() == [(7.0,)]


def test_deleting_the_lake_and_materializing_again_gives_the_same_actions_and_repairs(run, place):
    run(daily(), apple(**times(date(2014, 6, 9), 7, "open", "high", "low", "close")), actions=told())
    tables = ("clean.corporate_actions", "clean.repairs", "clean.bars")
    before = [place.resources.lake.query(f"SELECT * FROM {table} ORDER BY ALL") for table in tables]
    place.resources.lake.replace([(table, "true", [], pl.DataFrame()) for table in tables])
    run(daily())
    for table, rows in zip(tables, before, strict=True):
        assert place.resources.lake.query(f"SELECT * FROM {table} ORDER BY ALL").equals(rows), table


def test_two_vendors_that_disagree_fail_the_check_of_that_month_with_the_rows(run, place):
    dataset = daily(vendors=("yahoo", "other"))
    day = date(2014, 7, 8)
    result = run(dataset, apple(), apple("other", EARLY, **times(day, 1.002, "close")), actions=told())
    found = evaluations(result)
    assert {key: one.passed for key, one in found.items()} == {None: False, MONTHS[0]: True, MONTHS[1]: False}
    assert found[MONTHS[1]].metadata["failures"].value == 1
    for one in (found[None], found[MONTHS[1]]):
        assert one.severity == dg.AssetCheckSeverity.ERROR
        (case,) = json.loads(one.metadata["cases"].value)
        assert [case[name] for name in ("session", "field")] == ["2014-07-08", "close"]
        assert [case[name] for name in ("vendor", "other_vendor")] == ["yahoo", "other"]
        assert case["difference_bps"] == pytest.approx(20)
    assert found[None].metadata["failures_by_session"].value == {"2014-07-08": 1}


def test_another_dataset_is_compared_in_the_same_shares(run, place):
    before = pl.when(pl.col("session") < date(2014, 6, 9)).then(7.0).otherwise(1.0)
    prices = {name: pl.col(name) / before for name in ("open", "high", "low", "close")}
    run(daily("other"), apple("file", adjustment=pl.lit("split"), **prices))
    dataset = daily(compare_with=Comparison("other", 1.0))
    found = evaluations(run(dataset, apple(), actions=told()))
    # The other dataset knows of no split by itself.
    assert {key: one.passed for key, one in found.items()} == {None: True, MONTHS[0]: True, MONTHS[1]: True}
    assert found[None].metadata["bars_compared_with_dataset"].value == 43
    later = datetime(2020, 2, 1, tzinfo=UTC)
    run(daily("other"), apple("file", later, **times(date(2014, 6, 20), 0.999, "low")))
    found = evaluations(run(dataset))
    assert {key: one.passed for key, one in found.items()} == {None: False, MONTHS[0]: False, MONTHS[1]: True}
    (case,) = json.loads(found[MONTHS[0]].metadata["cases"].value)
    assert (case["field"], case["other_vendor"]) == ("low", "other: file")


def test_a_dataset_with_nobody_to_compare_with_has_no_such_check():
    dataset = daily()
    assert vendor_checks(dataset, definition(dataset)) == []


def test_bars_outside_a_symbol_s_time_in_the_universe_are_in_no_table_of_bars(run, place):
    ticker = lean_bars("WM").with_columns(
        pl.lit("file").alias("vendor"), pl.lit(LATE).cast(RAW_SCHEMA["fetched_at"]).alias("fetched_at")
    )
    dataset = make_dataset(
        interval="1d", first=date(2008, 9, 2), last=date(2009, 8, 31), name="waste",
        symbols=(Instrument("WM", first=date(2009, 8, 5)),),
    )  # fmt: skip
    lander = place.resources.lander(dataset)
    lander.publish(ticker.select(RAW_SCHEMA.names()))
    lander.land()
    defined = definition(dataset)
    common = {"partitions_def": defined, "backfill_policy": dg.BackfillPolicy.single_run()}
    asset = clean_bars_asset(dataset, common)
    with dg.DagsterInstance.ephemeral() as instance:
        tags = range_tags("2008-09-01", "2009-08-01")
        dg.materialize([asset], instance=instance, tags=tags, resources={"quantlytic": place.resources})
    lake = place.resources.lake
    bars = lake.query("SELECT min(session), count(*) FROM clean.bars").rows()
    rejected = lake.query("SELECT reason, max(session), count(*) FROM clean.quarantine GROUP BY ALL").rows()
    assert bars == [(date(2009, 8, 5), 6)] and rejected == [("not_in_universe", date(2008, 9, 26), 6)]


def test_actions_are_settled_once_an_hour_at_most_and_only_after_something_new():
    @dg.asset(partitions_def=dg.StaticPartitionsDefinition(["a", "b"]))
    def bars() -> None: ...

    @dg.asset(deps=[bars], automation_condition=follow_hourly())
    def settled() -> None: ...

    definitions = dg.Definitions(assets=[bars, settled])
    with dg.DagsterInstance.ephemeral() as instance:

        def requested(cursor, *at: int):
            result = dg.evaluate_automation_conditions(
                definitions, instance, cursor=cursor, evaluation_time=datetime(2025, 5, 12, *at, tzinfo=UTC)
            )
            return result.total_requested, result.cursor

        count, cursor = requested(None, 9, 10)
        instance.report_runless_asset_event(dg.AssetMaterialization("bars", partition="a"))
        early, cursor = requested(cursor, 9, 20)
        due, cursor = requested(cursor, 10, 1)
        instance.report_runless_asset_event(dg.AssetMaterialization("settled"))
        again, cursor = requested(cursor, 11, 1)
        assert (count, early, due, again) == (0, 0, 1, 0)
