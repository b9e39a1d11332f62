"""Which partitions are behind what they are made of, where one is made of several or several of one."""

import dagster as dg

from quantlytic_assets.automation.upstream import BehindUpstream

DAYS = dg.DailyPartitionsDefinition("2025-01-01", end_date="2025-04-01")
MONTHS = dg.MonthlyPartitionsDefinition("2025-01-01", end_date="2025-04-01")
BEFORE = dg.TimeWindowPartitionMapping(start_offset=-90, end_offset=-1, allow_nonexistent_upstream_partitions=True)


@dg.asset(partitions_def=DAYS, automation_condition=BehindUpstream())
def bars() -> None: ...


@dg.asset(
    partitions_def=MONTHS,
    deps=[dg.AssetDep(bars, partition_mapping=BEFORE)],
    automation_condition=BehindUpstream(),
)
def model() -> None: ...


@dg.asset(partitions_def=DAYS, deps=[bars, model], automation_condition=BehindUpstream())
def predictions() -> None: ...


@dg.asset(deps=[predictions], automation_condition=BehindUpstream())
def report() -> None: ...


ASSETS = [bars, model, predictions, report]


def made(instance: dg.DagsterInstance, asset: str, *partitions: str | None) -> None:
    for partition in partitions:
        instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=partition))


def behind(instance: dg.DagsterInstance) -> dict[str, list[str | None]]:
    result = dg.evaluate_automation_conditions(dg.Definitions(assets=ASSETS), instance)
    asked = {asset.key.to_user_string(): result.get_requested_partitions(asset.key) for asset in ASSETS}
    return {name: sorted(partitions, key=str) for name, partitions in asked.items() if partitions}


def test_nothing_is_behind_what_was_never_made(instance):
    assert behind(instance) == {}


def test_what_was_never_made_is_behind_what_is_there(instance):
    made(instance, "bars", "2025-01-31")
    assert behind(instance) == {"model": ["2025-02-01", "2025-03-01"], "predictions": ["2025-01-31"]}


def test_each_partition_is_compared_with_those_it_is_made_of(instance):
    days = DAYS.get_partition_keys()
    made(instance, "bars", *days)
    made(instance, "model", *MONTHS.get_partition_keys())
    made(instance, "predictions", *days)
    made(instance, "report", None)
    assert behind(instance) == {}
    made(instance, "bars", "2025-02-10")
    assert behind(instance) == {"model": ["2025-03-01"], "predictions": ["2025-02-10"]}
    made(instance, "model", "2025-03-01")
    assert behind(instance) == {"predictions": ["2025-02-10", *(day for day in days if day >= "2025-03-01")]}
    made(instance, "predictions", "2025-02-10")
    assert behind(instance)["report"] == [None]
