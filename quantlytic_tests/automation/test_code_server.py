"""A real code server whose run has died while the database is away."""

import logging
import multiprocessing
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import dagster as dg
import pytest
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._grpc.server import DagsterApiServer

from quantlytic_assets.automation.code_server import go_on_looking_after_runs

PATIENCE = 60


@dg.job
def landing():
    pass


@pytest.fixture(autouse=True)
def _only_here(monkeypatch):
    """What is done to the class is undone after each test."""
    monkeypatch.setattr(DagsterApiServer, "_check_for_orphaned_runs", DagsterApiServer._check_for_orphaned_runs)


@pytest.fixture
def server(tmp_path):
    code = tmp_path / "code.py"
    code.write_text("import dagster as dg\ndefs = dg.Definitions()\n")
    with ThreadPoolExecutor(1) as pool:
        server = DagsterApiServer(
            threading.Event(),
            logging.getLogger(__name__),
            pool,
            LoadableTargetOrigin(executable_path=sys.executable, python_file=str(code)),
        )
        yield server
        server.cleanup()


def wait_for(what):
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_a_run_that_died_while_the_database_was_away_is_reported_when_it_is_back(server, tmp_path, caplog):
    go_on_looking_after_runs()
    home, away = tmp_path / "home", tmp_path / "away"
    home.mkdir()
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        run = instance.create_run_for_job(landing, status=dg.DagsterRunStatus.STARTED)
        ref = instance.get_ref()
    home.rename(away)
    home.write_text("no directory, so that nothing can be opened or made here")
    process = multiprocessing.get_context("spawn").Process(target=sys.exit, args=(9,))
    process.start()
    with server._execution_lock:
        server._executions[run.run_id] = (process, ref)
        server._termination_events[run.run_id] = multiprocessing.get_context("spawn").Event()
    wait_for(lambda: "can't look after runs just now" in caplog.text)
    assert run.run_id in server._executions
    home.unlink()
    away.rename(home)
    wait_for(lambda: run.run_id not in server._executions)
    with dg.DagsterInstance.from_ref(ref) as instance:
        assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.FAILURE


def test_it_is_done_once_however_often_the_definitions_are_loaded():
    go_on_looking_after_runs()
    once = DagsterApiServer._check_for_orphaned_runs
    go_on_looking_after_runs()
    assert DagsterApiServer._check_for_orphaned_runs is once
