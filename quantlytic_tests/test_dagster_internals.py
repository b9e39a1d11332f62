"""What is relied on of Dagster's private parts, so that a new Dagster that changes them fails here."""

import ast
import inspect
import logging
import multiprocessing
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import forkserver
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._grpc.server import DagsterApiServer

import quantlytic_assets
from quantlytic_assets import dagster_internals
from quantlytic_assets.dagster_internals import (
    assign_freed_slots,
    check_evaluation,
    fork_run_workers,
    keep_watching_runs,
    range_tags,
    run_event_files,
    runs_of_location,
)
from quantlytic_assets.settings import CHECKOUT, CODE_LOCATION

PACKAGE = Path(quantlytic_assets.__file__).parent
PATIENCE = 60


def private_imports(path):
    """The private modules of Dagster that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        yield from (name for name in names if name.startswith("dagster._"))


def test_one_module_alone_imports_private_parts_of_dagster():
    found = {path: list(private_imports(path)) for path in PACKAGE.rglob("*.py")}
    assert {path.name for path, names in found.items() if names} == {"dagster_internals.py"}


def test_the_tags_of_a_range_make_one_run_over_its_partitions():
    seen = []

    @dg.asset(
        partitions_def=dg.DailyPartitionsDefinition("2025-01-01", end_date="2025-01-09"),
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def bars(context) -> None:
        seen.append(list(context.partition_keys))

    with dg.DagsterInstance.ephemeral() as instance:
        job = dg.Definitions(assets=[bars]).resolve_implicit_global_asset_job_def()
        assert job.execute_in_process(instance=instance, tags=range_tags("2025-01-02", "2025-01-04")).success
    assert seen == [["2025-01-02", "2025-01-03", "2025-01-04"]]


def test_an_evaluation_of_one_partition_belongs_to_its_materialization():
    evaluation = check_evaluation(
        dg.AssetKey(["d", "bars"]), "schema", "2025-01-02", False, {"failures": 2}, (7, "run")
    )
    target = evaluation.target_materialization_data
    assert (evaluation.partition, evaluation.passed, target.storage_id, target.run_id) == (
        "2025-01-02",
        False,
        7,
        "run",
    )
    assert evaluation.metadata["failures"].value == 2


def test_a_deleted_run_s_events_have_files_of_their_own_with_sqlite_and_none_in_memory(tmp_path):
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        run = instance.create_run_for_job(landing)
        instance.report_engine_event("looked at", dagster_run=run)
        files = run_event_files(instance, run.run_id)
        assert files and all(run.run_id in path.name and path.is_file() for path in files)
    with dg.DagsterInstance.ephemeral() as instance:
        assert run_event_files(instance, run.run_id) == []


def test_the_launcher_finds_a_run_s_code_server_as_it_does_to_end_a_run():
    assert list(inspect.signature(dg.DefaultRunLauncher._get_grpc_client_for_termination).parameters) == [
        "self",
        "run_id",
    ]


def test_the_type_of_a_job_that_a_sensor_takes_is_what_define_asset_job_makes():
    job = dg.define_asset_job("landing_of_bars", selection=dg.AssetSelection.all())
    assert isinstance(job, dagster_internals.UnresolvedAssetJobDefinition)


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
    keep_watching_runs()
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


@pytest.mark.parametrize("mended", [False, True])
def test_a_place_that_is_freed_while_a_step_is_entered_for_it_is_taken(monkeypatch, mended):
    storage_class = SqlEventLogStorage
    stock = getattr(storage_class.claim_concurrency_slot, "__wrapped__", storage_class.claim_concurrency_slot)
    monkeypatch.setattr(storage_class, "claim_concurrency_slot", stock)
    if mended:
        assign_freed_slots()
        assign_freed_slots()
    with dg.DagsterInstance.local_temp() as instance:
        storage = instance.event_log_storage
        storage.set_concurrency_slots("vendor", 1)
        assert storage.claim_concurrency_slot("vendor", "first", "step").is_claimed
        free = storage.has_unassigned_slots

        def leave_after_the_answer(key):
            answer = free(key)
            monkeypatch.setattr(storage, "has_unassigned_slots", free)
            storage.free_concurrency_slot_for_step("first", "step")
            return answer

        monkeypatch.setattr(storage, "has_unassigned_slots", leave_after_the_answer)
        claims = [storage.claim_concurrency_slot("vendor", "second", "step").is_claimed for _ in range(5)]
        # Without the patch a step waits for good: this fails when Dagster no longer needs it.
        assert any(claims) == mended


def test_it_is_done_once_however_often_the_definitions_are_loaded():
    keep_watching_runs()
    once = DagsterApiServer._check_for_orphaned_runs
    keep_watching_runs()
    assert DagsterApiServer._check_for_orphaned_runs is once


def imported(names, answers):
    """In a run's process: which modules are there already, and whether the heavy ones work after a fork."""
    there = [name in sys.modules for name in names]
    import polars as pl

    total = pl.DataFrame({"a": range(100_000)}).lazy().group_by(pl.col("a") % 7).agg(pl.len()).collect()["len"].sum()
    answers.put((there, total))


@pytest.fixture
def code_server(monkeypatch):
    """As if this process were a code server, until the end of the test."""
    monkeypatch.setattr(sys, "argv", ["dagster", "api", "grpc", "--socket", "s"])
    # A process has one fork server, which imports what it was told before it began: other tests may have begun it.
    forkserver._forkserver._stop()
    yield
    forkserver._forkserver._stop()
    if isinstance(DagsterApiServer.__dict__.get("_mp_ctx"), property):
        del DagsterApiServer._mp_ctx


def test_runs_of_a_code_server_are_forked_from_a_process_that_has_imported_what_they_need(code_server, server):
    names = ["quantlytic_assets.definitions", "exchange_calendars"]
    fork_run_workers(names, warm_up_after=3600)
    context = server._mp_ctx
    assert context.get_start_method() == "forkserver"
    answers = context.Queue()
    process = context.Process(target=imported, args=(names, answers))
    process.start()
    assert answers.get(timeout=PATIENCE) == ([True, True], 100_000)
    process.join(PATIENCE)
    assert process.exitcode == 0


def test_other_processes_than_code_servers_start_none(server):
    fork_run_workers(["json"], warm_up_after=3600)
    assert server._mp_ctx.get_start_method() == "spawn"


def test_a_run_of_this_process_belongs_to_the_code_location_meanwhile():
    @dg.asset
    def bars() -> None:
        pass

    job = dg.Definitions(assets=[bars]).resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.ephemeral() as instance:
        with runs_of_location(instance, "quantlytic_assets.definitions", CODE_LOCATION) as tags:
            shown = job.execute_in_process(instance=instance, tags=tags).run_id
        other = job.execute_in_process(instance=instance).run_id
        run = instance.get_run_by_id(shown)
        # What the UI's timeline groups runs by, and its pages of jobs filter by.
        assert run.remote_job_origin.location_name == CODE_LOCATION
        assert run.remote_job_origin.job_name == job.name
        label = {".dagster/repository": f"__repository__@{CODE_LOCATION}"}
        assert [one.run_id for one in instance.get_runs(dg.RunsFilter(tags=label))] == [shown]
        assert run.tags["dagster/max_retries"] == "0"
        assert instance.get_run_by_id(other).remote_job_origin is None


def test_the_workspaces_call_the_code_location_so():
    files = [CHECKOUT / "workspace.yaml", CHECKOUT / "deploy" / "workspace.docker.yaml"]
    for path in files:
        assert f"location_name: {CODE_LOCATION}" in path.read_text()
