"""Runs by job and status, how long they took, and the daemons' last signs of life."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._daemon.types import DaemonHeartbeat

from quantlytic_assets.observability import runs
from quantlytic_assets.observability.runs import RunWindow
from quantlytic_tests.observability.figures import figures


@dg.op
def work(context):
    if context.run.tags.get("fail"):
        raise ValueError("told to")


@dg.job(name="working")
def job():
    work()


@pytest.fixture
def instance(tmp_path):
    with dg.DagsterInstance.local_temp(str(tmp_path)) as made:
        yield made


def test_runs_are_counted_by_job_and_status(instance):
    window = RunWindow(instance)
    assert "quantlytic_recent_runs" not in figures(window.metrics())
    job.execute_in_process(instance=instance)
    job.execute_in_process(instance=instance, tags={"fail": "yes"}, raise_on_error=False)
    first = figures(window.metrics())
    assert first["quantlytic_recent_runs"] == {("working", "SUCCESS"): 1, ("working", "FAILURE"): 1}
    job.execute_in_process(instance=instance)
    # Read again with the overlap, and still each run once.
    found = figures(window.metrics())
    assert found["quantlytic_recent_runs"] == {("working", "SUCCESS"): 2, ("working", "FAILURE"): 1}
    seconds = found["quantlytic_recent_run_seconds"]
    assert {labels[2] for labels in seconds} == {"0.5", "0.95", "1"}
    ended = [one for one in instance.get_run_records() if one.dagster_run.status == dg.DagsterRunStatus.SUCCESS]
    longest = max(one.end_time - one.start_time for one in ended)
    assert seconds[("working", "SUCCESS", "1")] == pytest.approx(longest)


def test_more_runs_than_a_page_and_old_ones(instance, monkeypatch):
    monkeypatch.setattr(runs, "_PAGE", 2)
    for _ in range(5):
        job.execute_in_process(instance=instance)
    window = RunWindow(instance)
    assert figures(window.metrics())["quantlytic_recent_runs"] == {("working", "SUCCESS"): 5}
    monkeypatch.setattr(runs, "WINDOW", timedelta(seconds=-1))
    assert "quantlytic_recent_runs" not in figures(window.metrics())


def test_unfinished_runs_and_the_oldest_of_them(instance):
    made = instance.create_run_for_job(job, status=dg.DagsterRunStatus.NOT_STARTED)
    instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    found = figures(RunWindow(instance).metrics())
    assert found["quantlytic_unfinished_runs"] == {("working", "NOT_STARTED"): 1, ("working", "STARTED"): 1}
    created = instance.get_run_records(dg.RunsFilter(run_ids=[made.run_id]))[0].create_timestamp.replace(tzinfo=UTC)
    age = found["quantlytic_oldest_unfinished_run_seconds"][("working",)]
    assert 0 <= age <= (datetime.now(UTC) - created).total_seconds()


def test_the_daemons_signs_of_life(instance):
    instance.add_daemon_heartbeat(DaemonHeartbeat(1700000000.0, "SENSOR", "one", []))
    assert figures(RunWindow(instance).metrics())["quantlytic_daemon_heartbeat_timestamp_seconds"] == {
        ("SENSOR",): 1700000000.0
    }
