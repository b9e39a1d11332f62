"""Runs that did not start in time: retried where a retry can help, and never begun twice."""

import logging
import os
import shutil
import time

import dagster as dg
import pytest
from dagster._core.execution.api import execute_run_iterator
from dagster._daemon.monitoring.run_monitoring import monitor_starting_run

from quantlytic_assets.automation.run_launcher import BUSY_LOAD
from quantlytic_assets.settings import CHECKOUT

DAYS = dg.DailyPartitionsDefinition("2025-05-01", end_date="2025-05-11")


@dg.asset(partitions_def=DAYS)
def bars() -> None:
    """Made in no time."""


@pytest.fixture
def instance(tmp_path, monkeypatch):
    """An instance as an embedded installation has it."""
    shutil.copy(CHECKOUT / "dagster.yaml", tmp_path / "dagster.yaml")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with dg.DagsterInstance.get() as found:
        yield found


def _job():
    return dg.Definitions([bars], executor=dg.in_process_executor).resolve_implicit_global_asset_job_def()


@pytest.fixture
def starting(instance):
    """A run whose process has not begun."""
    return instance.create_run_for_job(
        _job(), tags={"dagster/partition": "2025-05-02"}, status=dg.DagsterRunStatus.NOT_STARTED
    )


def give_up(instance, run, monkeypatch, load, after):
    monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load))
    now = time.time()
    monkeypatch.setattr("dagster._daemon.monitoring.run_monitoring.get_current_timestamp", lambda: now + after)
    (record,) = instance.get_run_records(dg.RunsFilter(run_ids=[run.run_id]))
    monitor_starting_run(instance, record, logging.getLogger(__name__))
    return instance.get_run_by_id(run.run_id)


def messages(instance, run):
    return [entry.user_message or entry.message for entry in instance.all_logs(run.run_id)]


def test_a_run_has_five_minutes_to_start(instance, starting, monkeypatch):
    assert give_up(instance, starting, monkeypatch, load=0.5, after=280).status == dg.DagsterRunStatus.NOT_STARTED
    assert give_up(instance, starting, monkeypatch, load=0.5, after=320).status == dg.DagsterRunStatus.FAILURE


@pytest.mark.parametrize(("load_of_a_core", "retried"), [(0.5, "true"), (BUSY_LOAD + 1, "false")])
def test_a_run_that_did_not_start_is_retried_unless_the_machine_is_too_busy(
    instance, starting, monkeypatch, load_of_a_core, retried
):
    given_up = give_up(instance, starting, monkeypatch, load=load_of_a_core * os.cpu_count(), after=320)
    assert given_up.tags["dagster/will_retry"] == retried
    said = any("this machine is too busy" in message for message in messages(instance, starting))
    assert said == (retried == "false")


def test_a_worker_that_comes_after_its_run_was_given_up_does_nothing_and_says_so(instance, starting, monkeypatch):
    given_up = give_up(instance, starting, monkeypatch, load=100.0, after=320)
    list(execute_run_iterator(dg.reconstructable(_job), given_up, instance))
    assert instance.get_latest_materialization_event(bars.key) is None
    assert any("started after the run had already finished" in message for message in messages(instance, starting))
