"""Both profiles' dagster.yaml keep runs and logs where they belong and tell the truth of them."""

import shutil

import dagster as dg
import pytest
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value

from quantlytic_tests.deployment.stack import compose, filled
from quantlytic_tests.storage.places import PROFILES, opened

DAYS = dg.DailyPartitionsDefinition("2025-05-01", end_date="2025-05-11")


@dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.multi_run(250), pool="vendor_sample")
def half(context: dg.AssetExecutionContext) -> None:
    """Reports half of its partitions, and fails where it is told to."""
    print("half of them")
    if context.run.tags.get("fail"):
        for key in context.partition_keys[: len(context.partition_keys) // 2]:
            context.log_event(dg.AssetMaterialization(context.asset_key, partition=key))
        raise dg.Failure("the other half")


@pytest.fixture(params=PROFILES)
def placed(request, tmp_path, monkeypatch):
    """An instance as `quantlytic` makes it, and the place that it is of."""
    with opened(request.param, tmp_path / "home") as place:
        resources = place.resources
        for name, value in resources.dagster_environment().items():
            monkeypatch.setenv(name, value)
        # As in the containers: what is set there must keep the truth of the tests below.
        for name, value in compose(filled())["services"]["code"]["environment"].items():
            if name.startswith("DAGSTER_"):
                monkeypatch.setenv(name, value)
        home = tmp_path / "dagster"
        home.mkdir()
        shutil.copy(resources.dagster_yaml, home / "dagster.yaml")
        monkeypatch.setenv("DAGSTER_HOME", str(home))
        with dg.DagsterInstance.get() as instance:
            yield instance, place


def run(instance, **tags):
    keys = DAYS.get_partition_keys()
    ranged = {"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[-1]}
    job = dg.Definitions([half], executor=dg.in_process_executor).resolve_implicit_global_asset_job_def()
    return job.execute_in_process(instance=instance, tags=ranged | tags, raise_on_error=False)


def test_a_range_run_that_fails_half_way_shows_both_halves(placed):
    instance, _ = placed
    assert not run(instance, fail="yes").success
    status = get_and_update_asset_status_cache_value(instance, half.key, DAYS)
    done = status.deserialize_materialized_partition_subsets(DAYS)
    failed = status.deserialize_failed_partition_subsets(DAYS)
    keys = DAYS.get_partition_keys()
    assert sorted(done.get_partition_keys()) == keys[:5]
    assert sorted(failed.get_partition_keys()) == keys[5:]
    assert run(instance).success
    status = get_and_update_asset_status_cache_value(instance, half.key, DAYS)
    assert len(status.deserialize_materialized_partition_subsets(DAYS)) == 10
    assert len(status.deserialize_failed_partition_subsets(DAYS)) == 0


def test_partitions_of_a_run_under_way_are_shown_as_such(placed):
    instance, _ = placed
    keys = DAYS.get_partition_keys()
    job = dg.Definitions([half]).resolve_implicit_global_asset_job_def()
    instance.create_run_for_job(
        job,
        status=dg.DagsterRunStatus.STARTED,
        tags={"dagster/asset_partition_range_start": keys[2], "dagster/asset_partition_range_end": keys[4]},
    )
    status = get_and_update_asset_status_cache_value(instance, half.key, DAYS)
    assert sorted(status.deserialize_in_progress_partition_subsets(DAYS).get_partition_keys()) == keys[2:5]


def test_vendors_have_pools_of_one_and_live_runs_find_places(placed):
    instance, place = placed
    assert run(instance).success
    limits = instance.get_concurrency_config()
    assert (limits.pool_config.default_pool_limit, limits.pool_config.pool_granularity.value) == (1, "op")
    assert [one.limit for one in instance.event_log_storage.get_pool_limits() if one.name == "vendor_sample"] == [1]
    # Given back when the run ended.
    assert instance.event_log_storage.get_concurrency_info("vendor_sample").claimed_slots == []
    queue = limits.run_queue_config
    assert 0 < queue.max_concurrent_runs < 10
    gaps = [one["limit"] for one in queue.tag_concurrency_limits if one["key"] == "quantlytic/gaps"]
    assert gaps == [1]
    if not place.embedded:
        backfills = [one["limit"] for one in queue.tag_concurrency_limits if one["key"] == "dagster/backfill"]
        assert backfills and backfills[0] < queue.max_concurrent_runs
        assert instance.run_coordinator.dequeue_interval_seconds < 5
    assert instance.run_retries_enabled and instance.run_monitoring_enabled
    assert instance.run_monitoring_settings["free_slots_after_run_end_seconds"] > 0


def test_runs_and_logs_are_kept_where_the_profile_keeps_things(placed):
    instance, place = placed
    done = run(instance)
    (event,) = [one for one in done.all_events if one.event_type_value == "LOGS_CAPTURED"]
    log_key = [done.run_id, "compute_logs", event.logs_captured_data.file_key]
    assert b"half of them" in instance.compute_log_manager.get_log_data(log_key).stdout
    assert not instance.telemetry_enabled
    if place.embedded:
        assert "Sqlite" in type(instance.event_log_storage).__name__
        return
    import obstore

    stored = [item["path"] for batch in obstore.list(place.resources.bucket.store("dagster-logs")) for item in batch]
    assert any(done.run_id in path for path in stored)
    for storage in (instance.event_log_storage, instance.run_storage, instance.schedule_storage):
        assert type(storage).__module__.startswith("dagster_postgres")
    # The configuration names variables, never their values.
    for secret in place.secrets:
        assert secret not in str(instance.get_ref().to_dict()) and secret not in instance.info_str()
