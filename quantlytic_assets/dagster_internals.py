"""What Quantlytic needs of Dagster beyond its public names: the only module that imports `dagster._…`.

Each name says why no public one serves. `quantlytic_tests/test_dagster_internals.py` fails when a new Dagster changes
what is relied on here. Logic that can be written with public names does not belong here.
"""

from __future__ import annotations

import functools
import logging
import multiprocessing
import multiprocessing.forkserver
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

# The tag in which a materialization says what code made it. Public names say it of the newest partition alone.
from dagster._core.definitions.data_version import CODE_VERSION_TAG

# The type of a partitioned `define_asset_job`, which sensors take as their job.
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

# The parts of Dagster's SQLite storage. It has no setting for what `SqliteStorage` below changes.
from dagster._core.events import ASSET_CHECK_EVENTS, ASSET_EVENTS
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage

# The run tags of a range of partitions. Dagster documents what they do and exports no constants.
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG
from sqlalchemy import create_engine, event
from sqlalchemy.pool import QueuePool

if TYPE_CHECKING:
    # What `Definitions.resolve_asset_graph` returns; the class itself is not exported.
    # What an automation condition is given; public methods return these, the classes themselves are not exported.
    from dagster._core.asset_graph_view.asset_graph_view import AssetGraphView as AssetGraphView
    from dagster._core.asset_graph_view.entity_subset import EntitySubset as EntitySubset
    from dagster._core.definitions.assets.graph.asset_graph import AssetGraph as AssetGraph
    from dagster._core.events.log import EventLogEntry
    from dagster._core.launcher.base import CheckRunHealthResult as CheckRunHealthResult
    from dagster._serdes import ConfigurableClassData
    from sqlalchemy import Connection, Engine

__all__ = [
    "ASSET_PARTITION_RANGE_END_TAG",
    "ASSET_PARTITION_RANGE_START_TAG",
    "CODE_VERSION_TAG",
    "SqliteEventLog",
    "SqliteStorage",
    "UnresolvedAssetJobDefinition",
    "assign_freed_slots",
    "check_evaluation",
    "fork_run_workers",
    "keep_watching_runs",
    "range_tags",
    "run_event_files",
    "run_worker_health",
    "runs_of_location",
]

_log = logging.getLogger(__name__)


def range_tags(first: str, last: str) -> dict[str, str]:
    """The tags of one run over the partitions with keys `first` to `last`, both included."""
    return {ASSET_PARTITION_RANGE_START_TAG: first, ASSET_PARTITION_RANGE_END_TAG: last}


class SqliteEventLog(SqliteEventLogStorage):
    """Dagster's event log in SQLite, in the same files, with connections that are kept and batches in one transaction.

    Dagster opens and closes a connection, compiles each statement anew and waits for the disk twice for every event: a
    range run over 120 partitions has 2,300 of them. Here a process keeps the connections of the shards that it used
    last, and a batch of events is one transaction a shard. A power cut can take the last events with it, but no
    transaction by halves: the partitions of those events count as not made and are made again.
    """

    _SHARDS_KEPT = 8
    _BUSY_SECONDS = 60

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None):
        self._engines: OrderedDict[str, Engine] = OrderedDict()
        self._index_columns = False
        self._tables_there: set[str] = set()
        # The connections in use, all of them by the thread that holds the lock.
        self._open: dict[str, Connection] = {}
        super().__init__(base_dir, inst_data)
        setattr(self, "_db_lock", threading.RLock())  # noqa: B010 - another kind of lock, for mypy's sake

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._db_lock:
            if shard in self._open:
                # Within a transaction of the shard's: what is done now belongs to it.
                yield self._open[shard]
                return
            engine = self._engine(shard)
            if shard not in self._initialized_dbs:
                self._initdb(engine)
                self._initialized_dbs.add(shard)
            with engine.begin() as connection:
                self._open[shard] = connection
                try:
                    yield connection
                finally:
                    del self._open[shard]

    def _engine(self, shard: str) -> Engine:
        if shard in self._engines:
            self._engines.move_to_end(shard)
            return self._engines[shard]
        while len(self._engines) >= self._SHARDS_KEPT:
            # The index is used with each event: it is always among the last.
            _, oldest = self._engines.popitem(last=False)
            oldest.dispose()
        engine = create_engine(
            self.conn_string_for_shard(shard),
            poolclass=QueuePool,
            pool_size=1,
            connect_args={"timeout": self._BUSY_SECONDS, "check_same_thread": False},
        )
        event.listen(engine, "connect", _wait_for_no_disk)
        self._engines[shard] = engine
        return engine

    def _has_asset_key_index_cols_on_connection(self, conn: Connection) -> bool:
        # Dagster asks the schema for each event; columns that are there stay there.
        self._index_columns = self._index_columns or super()._has_asset_key_index_cols_on_connection(conn)
        return self._index_columns

    def has_table(self, table_name: str) -> bool:
        """Whether the index has a table. Dagster asks for each event, by a new connection; tables stay there."""
        if table_name not in self._tables_there and super().has_table(table_name):
            self._tables_there.add(table_name)
        return table_name in self._tables_there

    def store_event(self, event: EventLogEntry) -> None:
        """Store an event; what a check found in two transactions, where Dagster has three."""
        if event.is_dagster_event and event.dagster_event_type in ASSET_CHECK_EVENTS:
            self.store_event_batch([event])
        else:
            super().store_event(event)

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store events of one run: planned materializations and checks, or the materializations of a step."""
        if len({entry.run_id for entry in events}) > 1:
            super().store_event_batch(events)
            return
        rows = [self._event_to_row(entry) for entry in events]
        with self.run_connection(events[0].run_id) as connection:
            connection.execute(SqlEventLogStorageTable.insert(), rows)
        # The table of assets keeps the last event of each kind.
        last = {(entry.dagster_event_type, entry.get_dagster_event().asset_key): entry for entry in events}
        with self.index_transaction() as connection:
            assets: list[tuple[EventLogEntry, int]] = []
            for entry, row in zip(events, rows, strict=True):
                kind = entry.dagster_event_type
                if kind not in ASSET_EVENTS | ASSET_CHECK_EVENTS:
                    continue
                event_id = connection.execute(SqlEventLogStorageTable.insert(), row).lastrowid
                if kind in ASSET_CHECK_EVENTS:
                    self.store_asset_check_event(entry, event_id)
                    continue
                assets.append((entry, event_id))
                if last[kind, entry.get_dagster_event().asset_key] is entry:
                    self._store_asset_event(connection, entry, event_id)
            self._store_asset_event_tags(connection, [entry for entry, _ in assets], [number for _, number in assets])

    def dispose(self) -> None:
        """Close what is kept."""
        with self._db_lock:
            while self._engines:
                self._engines.popitem()[1].dispose()
        super().dispose()


def _wait_for_no_disk(connection: Any, _record: Any) -> None:
    # With a write-ahead log a transaction stays whole at this level, whatever happens.
    connection.execute("PRAGMA synchronous = NORMAL")


class SqliteStorage(DagsterSqliteStorage):
    """Dagster's SQLite storage with `SqliteEventLog`; the files are the same."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None):
        super().__init__(base_dir, inst_data)
        stock = self._event_log_storage
        self._event_log_storage = SqliteEventLog(stock._base_dir)

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Any) -> SqliteStorage:
        """As Dagster makes it from `dagster.yaml`."""
        return cls.from_local(inst_data=inst_data, **config_value)


@contextmanager
def runs_of_location(instance: dg.DagsterInstance, module: str, location: str) -> Iterator[dict[str, str]]:
    """Runs that are executed in this process meanwhile belong to a code location, as if it had launched them.

    module: the location's Python module, whose attribute `defs` are its definitions. Runs without a location are
    missing from the UI's timeline and from its pages of jobs, which say "No runs". `execute_in_process` has no argument
    for it. Yields tags for the runs: Dagster's daemon shall not repeat those that fail, their command tells of them.
    """
    from dagster._core.definitions.repository_definition import SINGLETON_REPOSITORY_NAME
    from dagster._core.remote_origin import ManagedGrpcPythonEnvCodeLocationOrigin, RemoteRepositoryOrigin
    from dagster._core.storage.tags import MAX_RETRIES_TAG
    from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

    target = LoadableTargetOrigin(executable_path=sys.executable, module_name=module, attribute="defs")
    origin = RemoteRepositoryOrigin(
        code_location_origin=ManagedGrpcPythonEnvCodeLocationOrigin(target, location),
        repository_name=SINGLETON_REPOSITORY_NAME,
    )
    create = instance.create_run_for_job

    def create_here(job_def: dg.JobDefinition, *arguments: Any, **named: Any) -> dg.DagsterRun:
        return create(job_def, *arguments, **{**named, "remote_job_origin": origin.get_job_origin(job_def.name)})

    setattr(instance, "create_run_for_job", create_here)  # noqa: B010 - a patch, for mypy's sake
    try:
        yield {MAX_RETRIES_TAG: "0"}
    finally:
        delattr(instance, "create_run_for_job")


def check_evaluation(
    key: dg.AssetKey,
    name: str,
    partition: str,
    passed: bool,
    metadata: Mapping[str, Any],
    materialization: tuple[int, str],
) -> dg.AssetCheckEvaluation:
    """An evaluation of a check on one partition, tied to the materialization it judges.

    `materialization` is that one's storage id and run id. Without it Dagster does not count the evaluation, and the
    class that holds it is not exported.
    """
    from dagster._core.definitions.asset_checks.asset_check_evaluation import (
        AssetCheckEvaluationTargetMaterializationData,
    )

    storage_id, run_id = materialization
    return dg.AssetCheckEvaluation(
        asset_key=key,
        check_name=name,
        passed=passed,
        metadata=metadata,
        target_materialization_data=AssetCheckEvaluationTargetMaterializationData(
            storage_id=storage_id, run_id=run_id, timestamp=0.0
        ),
        blocking=False,
        partition=partition,
    )


def run_event_files(instance: dg.DagsterInstance, run_id: str) -> list[Path]:
    """The files of a run's events, which an SQLite event log keeps one a run; none elsewhere.

    Dagster leaves them, at many kilobytes each, when the events are deleted.
    """
    storage = instance.event_log_storage
    if not isinstance(storage, SqliteEventLogStorage):
        return []
    shard = Path(storage.path_for_shard(run_id))
    return list(shard.parent.glob(f"{shard.name}*"))


def run_worker_health(launcher: dg.DefaultRunLauncher, run: dg.DagsterRun) -> CheckRunHealthResult:
    """Whether the code server that started a run is there and knows the run.

    Dagster's own launcher asks this only to end a run. Runs of commands, which no code server has started, count as
    running: `own_runs` looks after them.
    """
    import grpc
    from dagster._core.errors import DagsterUserCodeUnreachableError
    from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
    from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
    from dagster._serdes import deserialize_value

    client = launcher._get_grpc_client_for_termination(run.run_id)
    if client is None:
        return CheckRunHealthResult(WorkerStatus.RUNNING)
    try:
        answer = client.can_cancel_execution(CanCancelExecutionRequest(run_id=run.run_id), timeout=10)
    except DagsterUserCodeUnreachableError as error:
        # A server that is there and too busy to answer in time is left alone.
        gone = isinstance(error.__cause__, grpc.RpcError) and error.__cause__.code() == grpc.StatusCode.UNAVAILABLE
        return CheckRunHealthResult(
            WorkerStatus.NOT_FOUND if gone else WorkerStatus.RUNNING, "the code server that started it is gone"
        )
    if deserialize_value(answer, CanCancelExecutionResult).can_cancel:
        return CheckRunHealthResult(WorkerStatus.RUNNING)
    return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "its code server does not know it")


def keep_watching_runs() -> None:
    """Make this process's code server go on watching its runs after an error.

    A code server looks twice a second for processes of runs that have ended without a word, and reports those runs as
    failed. In Dagster the thread that does so ends with the first error. Were the database away for a quarter of a
    minute at the wrong moment, the server would notice no death of a run any more, and go on to answer that the dead
    ones are at work: they would stay `STARTED` until it is started again, and no other landing would follow them.
    """
    from dagster._grpc.server import DagsterApiServer

    look = DagsterApiServer._check_for_orphaned_runs
    if hasattr(look, "__wrapped__"):
        return

    @functools.wraps(look)
    def look_and_go_on(server: DagsterApiServer) -> None:
        try:
            look(server)
        except Exception as error:  # whatever it is: a run is forgotten only when it is reported
            _log.warning("can't look after runs just now: %s: %s", type(error).__name__, error)

    setattr(DagsterApiServer, "_check_for_orphaned_runs", look_and_go_on)  # noqa: B010 - a patch, for mypy's sake


def assign_freed_slots() -> None:
    """Make a step of this process take a place in a pool that was freed while the step was put on the pool's list.

    Dagster first asks whether a place is free and then enters the step on the list. Where another run leaves its place
    in between, the step is entered as one that waits, and only the next run that leaves looks at the list: with nobody
    else in the pool the step would wait for good.
    """
    from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage

    claim = SqlEventLogStorage.claim_concurrency_slot
    if hasattr(claim, "__wrapped__"):
        return

    @functools.wraps(claim)
    def claim_or_assign(
        storage: SqlEventLogStorage, concurrency_key: str, run_id: str, step_key: str, priority: int | None = None
    ) -> Any:
        status = claim(storage, concurrency_key, run_id, step_key, priority)
        if status.is_assigned or not storage.has_unassigned_slots(concurrency_key):
            return status
        storage.assign_pending_steps([concurrency_key])
        return claim(storage, concurrency_key, run_id, step_key, priority)

    setattr(SqlEventLogStorage, "claim_concurrency_slot", claim_or_assign)  # noqa: B010 - a patch, for mypy's sake


def fork_run_workers(preload: Sequence[str], warm_up_after: float) -> None:
    """Make this process's code server fork the processes of its runs from one that has imported `preload`.

    Dagster starts a new interpreter for each run, which takes several seconds of a core until it has imported
    everything. The modules are imported only: none of them may start threads or open connections when it is imported.
    The process that is forked from is started with the first run, or `warm_up_after` seconds after this call, so that
    it does not take the processor from the server while that one starts. Elsewhere than in a code server, as in the
    processes of the runs themselves, nothing happens.
    """
    if sys.argv[1:3] != ["api", "grpc"]:
        return
    from dagster._grpc.server import DagsterApiServer

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    # A property of the class wins over what a server has set or will set for itself.
    fixed = property(lambda server: context, lambda server, other: None)
    setattr(DagsterApiServer, "_mp_ctx", fixed)  # noqa: B010 - a patch, for mypy's sake
    warm_up = threading.Timer(warm_up_after, multiprocessing.forkserver.ensure_running)
    warm_up.daemon = True
    warm_up.start()
