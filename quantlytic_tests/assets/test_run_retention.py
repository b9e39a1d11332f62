"""Old runs are forgotten, and no partition of any asset is in another state for it."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
import yaml
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value

from quantlytic_assets.assets.run_retention import Forgotten, forget_old_runs, runs_in_force
from quantlytic_assets.storage.postgres import ensure_database
from quantlytic_tests.storage.places import PROFILES, opened

DAYS = dg.DailyPartitionsDefinition("2025-05-01", end_date="2025-05-06")
KEYS = DAYS.get_partition_keys()
IN_A_MONTH = timedelta(days=31)


@pytest.fixture(params=PROFILES)
def instance(request, tmp_path):
    """A Dagster instance as each profile has it, with its logs on this machine."""
    with opened(request.param, tmp_path / "home") as place:
        home = tmp_path / "dagster"
        home.mkdir()
        config = {"telemetry": {"enabled": False}}
        if place.embedded:
            ours = {"module": "quantlytic_assets.dagster_internals", "class": "SqliteStorage"}
            config["storage"] = {"custom": {**ours, "config": {"base_dir": str(home)}}}
        else:
            url = place.settings.postgres_url("dagster")
            ensure_database(url)
            config["storage"] = {"postgres": {"postgres_url": url.replace("+psycopg2", "")}}
        (home / "dagster.yaml").write_text(yaml.safe_dump(config))
        with dg.DagsterInstance.from_config(str(home)) as found:
            yield found


class Failing(dg.Config):
    fail: bool = False


@dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
def bars(context: dg.AssetExecutionContext, config: Failing) -> None:
    """An asset of several partitions; a run may be of many of them."""
    if config.fail:
        raise dg.Failure("as it was told")
    print("so that there is a log")


@dg.asset
def report() -> None:
    """An asset without partitions."""


@dg.observable_source_asset
def feed() -> dg.ObserveResult:
    """Something observed."""
    return dg.ObserveResult(metadata={"lost": 1})


@dg.op
def land(context: dg.OpExecutionContext) -> None:
    """An op that tells of partitions of an asset, as landing does."""
    context.log_event(dg.AssetMaterialization("bars", partition=KEYS[4]))


@dg.job(executor_def=dg.in_process_executor)
def landing() -> None:
    land()


@pytest.fixture
def run(instance):
    """Runs a job over the assets; gives its run id."""
    jobs = dg.Definitions(
        assets=[bars, report, feed],
        jobs=[
            dg.define_asset_job("bars_job", [bars], executor_def=dg.in_process_executor),
            dg.define_asset_job("report_job", [report], executor_def=dg.in_process_executor),
            dg.define_asset_job("feed_job", [feed], executor_def=dg.in_process_executor),
            landing,
        ],
    )

    def execute(name, first=None, last=None, fail=False):
        tags = {}
        if first is not None:
            tags = {
                "dagster/asset_partition_range_start": KEYS[first],
                "dagster/asset_partition_range_end": KEYS[first if last is None else last],
            }
        config = {"ops": {"bars": {"config": {"fail": fail}}}} if name == "bars_job" else {}
        result = jobs.resolve_job_def(name).execute_in_process(
            run_config=config, instance=instance, tags=tags, raise_on_error=False
        )
        assert result.success is not fail
        return result.run_id

    return execute


def states(instance):
    """What the UI shows of each asset, worked out from the events anew."""
    found = {}
    for asset, definition in ((bars, DAYS), (report, None), (feed, None)):
        key = asset.key
        instance.wipe_asset_cached_status([key])
        status = get_and_update_asset_status_cache_value(instance, key, definition) if definition else None
        found[key] = (
            status and status.serialized_materialized_partition_subset,
            status and status.serialized_failed_partition_subset,
            dict(instance.get_latest_storage_id_by_partition(key, dg.DagsterEventType.ASSET_MATERIALIZATION)),
            [record.storage_id for record in instance.fetch_materializations(key, limit=1).records],
            [record.storage_id for record in instance.fetch_observations(key, limit=1).records],
        )
    return found


def later(after=IN_A_MONTH):
    return datetime.now(UTC) + after


def left(instance):
    return set(instance.get_run_ids())


@pytest.fixture
def history(run):
    """Runs of all kinds by name."""
    return {
        "first of all days": run("bars_job", 0, 3),
        "failed, then done": run("bars_job", 1, fail=True),
        "done again": run("bars_job", 1, 2),
        "failed last": run("bars_job", 3, fail=True),
        "done last": run("bars_job", 2, 2),
        "report before": run("report_job"),
        "report": run("report_job"),
        "observed before": run("feed_job"),
        "observed": run("feed_job"),
        "landed before": run("landing"),
        "landed": run("landing"),
    }


def test_runs_that_no_state_rests_on_are_forgotten_and_every_state_stays(instance, history):
    before = states(instance)
    gone = {"failed, then done", "report before", "observed before", "landed before"}
    assert runs_in_force(instance) == {run_id for name, run_id in history.items() if name not in gone}
    done = forget_old_runs(instance, now=later())
    assert left(instance) == {run_id for name, run_id in history.items() if name not in gone}
    assert done == Forgotten(deleted=4, kept=7, more=False)
    assert states(instance) == before
    _, failed, *_ = before[bars.key]
    assert list(DAYS.deserialize_subset(failed).get_partition_keys()) == [KEYS[3]]
    assert forget_old_runs(instance, now=later()) == Forgotten(0, 7, False)


def test_what_comes_later_sets_older_runs_free(instance, history, run):
    run("bars_job", 0, 3)
    before = states(instance)
    forget_old_runs(instance, now=later())
    gone = {"first of all days", "done again", "done last", "failed last", "failed, then done"}
    assert left(instance).isdisjoint(history[name] for name in gone)
    assert states(instance) == before


def test_young_and_unfinished_runs_stay_and_so_many_go_at_once_the_oldest_first(instance, history):
    queued = instance.create_run_for_job(landing)
    assert forget_old_runs(instance, now=later(timedelta(days=29))) == Forgotten(0, 0, False)
    assert forget_old_runs(instance, most=3, now=later()) == Forgotten(3, 7, True)
    assert history["landed before"] in left(instance)
    assert forget_old_runs(instance, most=3, now=later()) == Forgotten(1, 7, False)
    assert queued.run_id in left(instance)


def test_nothing_of_a_forgotten_run_is_left(instance, run, tmp_path):
    gone, kept = run("report_job"), run("report_job")

    def traces(run_id):
        """Its logs, its events, and the file of those where they have one."""
        events = instance.fetch_materializations(report.key, limit=10).records
        return [*tmp_path.rglob(f"{run_id}*"), *(record for record in events if record.run_id == run_id)]

    assert len(traces(gone)) == len(traces(kept)) > 1
    forget_old_runs(instance, now=later())
    assert left(instance) == {kept}
    assert len(traces(kept)) > 1
    assert traces(gone) == []


def test_a_run_that_another_process_has_just_forgotten_does_no_harm(instance, run, monkeypatch):
    gone, kept = run("report_job"), run("report_job")
    listed = instance.get_run_ids()
    forget_old_runs(instance, now=later())
    with monkeypatch.context() as patch:
        patch.setattr(instance, "get_run_ids", lambda *arguments, **options: listed)
        forget_old_runs(instance, now=later())
    assert gone in listed and left(instance) == {kept}


def test_many_partitions_are_asked_for_in_pages(instance, run, monkeypatch):
    monkeypatch.setattr("quantlytic_assets.assets.run_retention._PAGE", 2)
    kept = [run("bars_job", 0, 4), run("bars_job", 2, 4)]
    run_id = run("bars_job", 3, 3)
    assert runs_in_force(instance) == {*kept, run_id}
