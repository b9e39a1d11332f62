"""The maintenance assets do their work, show sizes before and after, and fail where something was left undone."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest

from quantlytic_assets.assets.maintenance import (
    archive_maintenance_asset,
    archive_maintenance_key,
    closed_before,
    instance_maintenance_asset,
    lake_maintenance_asset,
    retention_asset,
)
from quantlytic_assets.automation.schedules import daily_maintenance
from quantlytic_tests.frames import make_dataset, utc
from quantlytic_tests.storage.compacting import all_rows, fill, land_segment, lose_a_row
from quantlytic_tests.storage.maintaining import DAY
from quantlytic_tests.storage.places import PROFILES, opened
from quantlytic_tests.storage.processes import replace_session

DATASET = make_dataset("24/7", "1m", first=date(2025, 5, 1), last=None, symbols=("A", "B"))
COMMON = {"group_name": "maintenance", "owners": ["team:tests"]}


@pytest.fixture(params=PROFILES)
def place(request, tmp_path):
    with opened(request.param, tmp_path) as found:
        yield found


@pytest.fixture
def instance(tmp_path):
    home = tmp_path / "dagster"
    home.mkdir()
    with dg.DagsterInstance.local_temp(str(home)) as found:
        yield found


@pytest.fixture
def definitions(place):
    assets = dg.Definitions(
        assets=[
            archive_maintenance_asset(DATASET, COMMON),
            lake_maintenance_asset(COMMON),
            instance_maintenance_asset(COMMON),
        ],
        resources={"quantlytic": dg.ResourceDefinition.hardcoded_resource(place.resources)},
    )
    return dg.Definitions.merge(assets, daily_maintenance("maintenance"))


@pytest.fixture
def maintain(definitions, instance):
    """Runs the whole job; gives what each asset shows, by the last part of its key."""

    def run(success=True, **config):
        job = definitions.resolve_job_def("maintenance")
        ops = {name: {"config": values} for name, values in config.items()}
        result = job.execute_in_process(instance=instance, run_config={"ops": ops}, raise_on_error=False)
        assert result.success is success
        return {
            event.asset_key.path[-1]: {name: value.value for name, value in event.materialization.metadata.items()}
            for event in result.get_asset_materialization_events()
        }

    return run


def test_archive_lake_and_instance_are_made_smaller_and_say_so(place, maintain, instance):
    archive, lake = place.resources.archive, place.resources.lake
    fill(archive, ("2025-05-09", "2025-05-10"))
    land_segment(archive, datetime.now(UTC).date().isoformat(), 20)
    land_segment(archive, datetime.now(UTC).date().isoformat(), 21)
    rows = all_rows(archive)
    for i in range(12):
        replace_session(lake, 1, "A", DAY + timedelta(days=i), 20)
    shown = maintain()
    archived = shown["archive_maintenance"]
    assert (archived["objects_before"], archived["objects"]) == (10, 4)
    assert archived["bytes"] < archived["bytes_before"]
    assert (archived["partitions_merged"], archived["objects_merged"], archived["objects_deleted"]) == (2, 8, 0)
    assert all_rows(archive).equals(rows)
    merged = shown["lake_maintenance"]
    assert (merged["files_before"], merged["files"], merged["merged_files"]) == (12, 1, 12)
    assert merged["snapshots"] >= merged["snapshots_before"] > 12
    assert shown["instance_maintenance"] == {
        "runs_before": 1, "runs": 1, "runs_deleted": 0, "old_runs_kept": 0, "more_to_delete": False
    }  # fmt: skip
    # Later, when nobody can be reading the merged segments any more.
    shown = maintain(
        sample_set__archive_maintenance={"grace_hours": 0, "settled_hours": 0},
        instance_maintenance={"keep_runs_days": 0},
    )
    assert shown["archive_maintenance"]["objects_deleted"] == 8
    # Each asset's newest materialization is of the second run.
    assert shown["instance_maintenance"]["runs_deleted"] == 0
    shown = maintain(instance_maintenance={"keep_runs_days": 0})
    assert shown["instance_maintenance"]["runs_deleted"] == 1
    assert all_rows(archive).equals(rows)


def test_a_partition_that_is_not_as_it_should_be_fails_its_asset_and_not_the_others(place, maintain):
    archive = place.resources.archive
    broken = fill(archive, ("2025-05-09",))[1]
    fill(archive, ("2025-05-10",))
    lose_a_row(archive, broken)
    rows = all_rows(archive)
    assert set(maintain(success=False)) == {"lake_maintenance", "instance_maintenance"}
    assert all_rows(archive).equals(rows)
    assert [stored.partition for stored in archive.objects(DATASET.name)] == ["2025-05-09"] * 4 + ["2025-05-10"]


@pytest.mark.parametrize(
    ("dataset", "key", "closes"),
    [
        (DATASET, "2025-05-10", utc("2025-05-11T00:00")),
        # New York closes at 20:00 UTC in summer, at 18:00 on the day before a holiday.
        (make_dataset(), "2025-03-10", utc("2025-03-10T20:00")),
        (make_dataset(), "2025-07-03", utc("2025-07-03T17:00")),
        # A bar filed on a day without a session.
        (make_dataset(), "2025-03-08", utc("2025-03-09T00:00")),
        (make_dataset(interval="1d"), "2025-05-01", utc("2025-05-30T20:00")),
        (make_dataset(interval="1d"), "2024-12-01", utc("2024-12-31T21:00")),
    ],
)
def test_a_partition_is_closed_when_its_last_session_is(dataset, key, closes):
    assert closed_before(dataset, closes + timedelta(seconds=1))(key)
    assert not closed_before(dataset, closes)(key)


def test_the_maintenance_is_scheduled_daily_but_not_beside_itself(definitions, instance):
    schedule = definitions.resolve_schedule_def("daily_maintenance")
    assert schedule.default_status is dg.DefaultScheduleStatus.STOPPED
    job = definitions.resolve_job_def("maintenance")
    assert job.asset_layer.executable_asset_keys == {
        archive_maintenance_key(DATASET), dg.AssetKey("lake_maintenance"), dg.AssetKey("instance_maintenance")
    }  # fmt: skip
    with dg.build_schedule_context(instance=instance) as context:
        assert len(schedule.evaluate_tick(context).run_requests) == 1
        run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
        assert schedule.evaluate_tick(context).run_requests == []
        instance.report_run_canceled(run)
        assert len(schedule.evaluate_tick(context).run_requests) == 1


def test_retention_shows_what_it_deleted_and_leaves_the_archive_unless_asked(place, instance):
    dataset = replace(DATASET, keep=timedelta(days=3))
    today = datetime.now(UTC).date()
    days = [today - timedelta(days=back) for back in (5, 4, 3, 0)]
    archive, lake = place.resources.archive, place.resources.lake
    fill(archive, tuple(day.isoformat() for day in days))
    for day in days:
        replace_session(lake, 1, "A", day, 20)
    definitions = dg.Definitions(
        assets=[retention_asset(dataset, COMMON)],
        jobs=[dg.define_asset_job("retention", executor_def=dg.in_process_executor)],
        resources={"quantlytic": dg.ResourceDefinition.hardcoded_resource(place.resources)},
    )

    def retain(**config):
        run_config = {"ops": {f"{dataset.name}__retention": {"config": config}}}
        result = definitions.resolve_job_def("retention").execute_in_process(instance=instance, run_config=run_config)
        (event,) = result.get_asset_materialization_events()
        return {name: value.value for name, value in event.materialization.metadata.items()}

    rows = all_rows(archive)
    shown = retain()
    assert shown["first_kept"] == days[2].isoformat()
    assert (shown["rows_deleted"], shown["rows_deleted_by_table"]) == (40, {"clean.bars": 40})
    assert all_rows(archive).equals(rows) and not any(name.startswith("archive_") for name in shown)
    shown = retain(archive=True)
    assert shown["rows_deleted"] == 0
    assert (shown["archive_partitions_deleted"], shown["archive_objects_deleted"]) == (2, 8)
    assert shown["archive_bytes_deleted"] > 0
    assert sorted({one.partition for one in archive.objects(DATASET.name)}) == [days[2].isoformat(), today.isoformat()]
