"""`SqliteStorage` keeps what Dagster's own SQLite storage keeps, in files that Dagster's own can read."""

import multiprocessing
import sqlite3

import dagster as dg
import pytest
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage

from quantlytic_assets.dagster_internals import SqliteEventLog, SqliteStorage, range_tags

DAYS = dg.DailyPartitionsDefinition("2025-01-01", end_date="2025-02-01")
KEYS = DAYS.get_partition_keys()


@dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
def bars(context) -> None:
    """One materialization a partition, each with its own metadata."""
    for at, key in enumerate(context.partition_keys):
        context.add_asset_metadata({"rows": at}, partition_key=key)


@dg.asset(partitions_def=DAYS, deps=[bars], backfill_policy=dg.BackfillPolicy.single_run())
def features(context) -> dg.MaterializeResult:
    """Metadata of the run."""
    return dg.MaterializeResult(metadata={"rows": 7})


@dg.asset
def report() -> dg.MaterializeResult:
    """An asset without partitions, with a tag."""
    return dg.MaterializeResult(tags={"kind": "report"})


@dg.asset_check(asset=bars, partitions_def=DAYS)
def plausible(context) -> dg.AssetCheckResult:
    """A check of the range."""
    return dg.AssetCheckResult(passed=True, metadata={"looked_at": 3})


def job():
    """All of the above."""
    definitions = dg.Definitions(
        assets=[bars, features, report],
        asset_checks=[plausible],
        jobs=[dg.define_asset_job("all", selection="*", partitions_def=DAYS, executor_def=dg.in_process_executor)],
    )
    return definitions.resolve_job_def("all")


def instance_on(home, storage):
    """A Dagster instance in a directory with one of the two storages."""
    home.mkdir(exist_ok=True)
    module = (
        "quantlytic_assets.dagster_internals" if storage is SqliteStorage else "dagster._core.storage.sqlite_storage"
    )
    (home / "dagster.yaml").write_text(
        f"telemetry: {{enabled: false}}\nstorage:\n  custom:\n    module: {module}\n    class: {storage.__name__}\n"
        f"    config: {{base_dir: {home}}}\n"
    )
    return dg.DagsterInstance.from_config(str(home))


def run_on(instance, first=0, last=-1):
    """Run the job over a range of partitions."""
    result = job().execute_in_process(instance=instance, tags=range_tags(KEYS[first], KEYS[last]))
    assert result.success
    return result.run_id


def what_is_kept(instance, run_id):
    """What the UI and the sensors read of a run and its assets, without times and ids."""
    events = [
        (entry.get_dagster_event().event_type_value, entry.get_dagster_event().partition, entry.step_key)
        for entry in instance.all_logs(run_id)
        if entry.is_dagster_event
    ]
    return {
        "events": sorted(events, key=str),
        "materialized": {key: instance.get_materialized_partitions(dg.AssetKey(key)) for key in ("bars", "features")},
        "latest": {
            key: {
                partition: record.asset_materialization.metadata["rows"].value
                for partition, record in (
                    (one.partition_key, one)
                    for one in instance.fetch_materializations(dg.AssetKey(key), limit=1000, ascending=True).records
                )
            }
            for key in ("bars", "features")
        },
        "planned": len(
            instance.event_log_storage.get_event_records(
                dg.EventRecordsFilter(dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED)
            )
        ),
        "assets": {
            key: instance.get_latest_materialization_event(dg.AssetKey(key)).get_dagster_event().partition
            for key in ("bars", "features", "report")
        },
        "checks": sorted(
            (record.status.value, str(record.partition))
            for record in instance.event_log_storage.get_asset_check_execution_history(
                dg.AssetCheckKey(dg.AssetKey("bars"), "plausible"), limit=1000
            )
        ),
        "run": instance.get_run_by_id(run_id).status,
    }


@pytest.mark.parametrize("batch", ["0", "7", "1000"])
def test_events_are_those_that_dagster_keeps(tmp_path, monkeypatch, batch):
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "0")
    with instance_on(tmp_path / "stock", DagsterSqliteStorage) as stock:
        run_on(stock, 0, 9)
        theirs = what_is_kept(stock, run_on(stock, 5, 20))
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", batch)
    with instance_on(tmp_path / "ours", SqliteStorage) as ours:
        assert type(ours.event_log_storage) is SqliteEventLog
        run_on(ours, 0, 9)
        run_id = run_on(ours, 5, 20)
        assert what_is_kept(ours, run_id) == theirs
    # Dagster's own storage reads the same files, as an older version of an installation would.
    with instance_on(tmp_path / "ours", DagsterSqliteStorage) as again:
        assert type(again.event_log_storage) is SqliteEventLogStorage
        assert what_is_kept(again, run_id) == theirs


def run_in_a_process(home, first, last):
    """One run, as the process of a command or of a run worker makes it."""
    with dg.DagsterInstance.from_config(str(home)) as instance:
        run_on(instance, first, last)


def test_runs_of_several_processes_share_the_files(tmp_path):
    home = tmp_path / "one"
    with instance_on(home, SqliteStorage) as instance:
        spawned = multiprocessing.get_context("spawn")
        workers = [
            spawned.Process(target=run_in_a_process, args=(home, 10 * at, 10 * at + 9), daemon=True) for at in range(3)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(120)
        assert [worker.exitcode for worker in workers] == [0, 0, 0]
        assert instance.get_materialized_partitions(dg.AssetKey("bars")) == set(KEYS[:30])


def test_more_runs_than_connections_are_kept(tmp_path):
    with instance_on(tmp_path / "one", SqliteStorage) as instance:
        runs = [run_on(instance, at, at) for at in range(SqliteEventLog._SHARDS_KEPT + 2)]
        assert len(instance.event_log_storage._engines) == SqliteEventLog._SHARDS_KEPT
        counts = {len(instance.all_logs(run_id)) for run_id in runs}
        assert len(counts) == 1 and counts != {0}


def test_a_batch_is_stored_whole_or_not_at_all(tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "1000")
    with instance_on(tmp_path / "one", SqliteStorage) as instance:
        run_on(instance, 0, 1)
        storage = instance.event_log_storage
        index = storage.path_for_shard("index")
        count = "SELECT count(*) FROM event_logs WHERE dagster_event_type = 'ASSET_MATERIALIZATION'"
        before = sqlite3.connect(index).execute(count).fetchone()
        entries = [
            entry
            for entry in instance.all_logs(instance.get_runs()[0].run_id)
            if entry.is_dagster_event and entry.dagster_event_type == dg.DagsterEventType.ASSET_MATERIALIZATION
        ]

        def fail(*_):
            raise OSError("no space left on device")

        monkeypatch.setattr(storage, "_store_asset_event", fail)
        with pytest.raises(OSError, match="no space"):
            storage.store_event_batch(entries)
        assert sqlite3.connect(index).execute(count).fetchone() == before
