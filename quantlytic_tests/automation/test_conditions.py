"""Which partitions follow their upstream by themselves."""

from datetime import datetime, timedelta

import dagster as dg
import pytest

from quantlytic_assets.automation.conditions import follow_upstream

DAYS = dg.DailyPartitionsDefinition("2025-03-01", end_date="2025-03-21")


@pytest.mark.parametrize(
    ("keep", "followed"),
    [(None, ["2025-03-02", "2025-03-12", "2025-03-20"]), (timedelta(days=10), ["2025-03-12", "2025-03-20"])],
)
def test_late_data_of_an_old_session_is_followed_unless_it_has_expired(keep, followed):
    @dg.asset(partitions_def=DAYS)
    def above() -> None: ...

    @dg.asset(partitions_def=DAYS, deps=[above], automation_condition=follow_upstream(keep))
    def below() -> None: ...

    definitions = dg.Definitions(assets=[above, below])
    with dg.DagsterInstance.ephemeral() as instance:
        first = dg.evaluate_automation_conditions(definitions, instance, evaluation_time=datetime(2025, 3, 25))
        for day in ("2025-03-02", "2025-03-12", "2025-03-20"):
            instance.report_runless_asset_event(dg.AssetMaterialization("above", partition=day))
        result = dg.evaluate_automation_conditions(
            definitions, instance, cursor=first.cursor, evaluation_time=datetime(2025, 3, 25, 1)
        )
        assert sorted(result.get_requested_partitions(dg.AssetKey("below"))) == followed
