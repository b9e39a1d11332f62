"""A process that has imported what the programs of this project import, and forks one of them for each client.

Importing Dagster, MLflow and dbt takes several seconds of a core; a fork takes a few milliseconds. What is forked is
the program itself, in a session of its own, with nothing shared but what was imported. Nothing here may start threads
or open connections: a fork would have neither.
"""

from __future__ import annotations

import atexit
import fcntl
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import dropwhile
from multiprocessing import spawn
from pathlib import Path
from types import ModuleType

import numpy as np

from quantlytic_assets import settings
from quantlytic_assets.features.registry import Registry
from quantlytic_assets.trading.engine import codes as c
from quantlytic_assets.trading.engine.run import prepare
from quantlytic_assets.trading.engine.settings import EngineSettings
from quantlytic_assets.trading.engine.settlement import BrokerReport, Ordered, settle
from quantlytic_assets.trading.engine.state import State

# In the directory of programs: there when all kernels are compiled, or will not be.
COMPILED = "compiled"
# Linux passes no more at once.
_MOST_FILES = 253

# Most of it is imported by the definitions; the rest when a run needs it first, or by processes of tests. Not the
# command line itself: it looks at the terminal and the environment when it is imported.
_IMPORTS = (
    "boto3.s3.transfer",
    "quantlytic_assets.definitions",
    "quantlytic_assets.commands.backfill",
    "quantlytic_assets.commands.backfilling",
    "quantlytic_assets.services.features",
    "quantlytic_assets.commands.reports",
    "quantlytic_assets.commands.results",
    "quantlytic_assets.charts.models",
    "quantlytic_assets.services.ingest",
    "quantlytic_assets.services.migrations",
    "quantlytic_assets.vendors.sample",
    "dagster._core.instance.factory",
    "dagster._core.storage.local_compute_log_manager",
    "dagster._core.storage.root",
    "dagster._grpc.impl",
    "dagster_webserver.cli",
    "dbt.adapters.duckdb",
    "dbt.cli.main",
    "dbt.task.build",
    "dbt.task.docs.generate",
    "exchange_calendars",
    "matplotlib.pyplot",
    "mlflow.pyfunc",
    "mlflow.sklearn",
    "mlflow.store.model_registry.sqlalchemy_workspace_store",
    "mlflow.store.tracking.sqlalchemy_workspace_store",
    "numba.experimental.jitclass.base",
    "numba.typed",
    "pandera.backends.polars.register",
    "pytest",
    "quantlytic_tests.live.killing",
    "quantlytic_tests.services.desk",
    "quantlytic_tests.storage.maintaining",
    "skops.io",
    "talib",
    "upath.implementations.local",
)


def _quantlytic(arguments: Sequence[str]) -> None:
    from quantlytic_assets.cli import main

    main(list(arguments))


def _dbt(arguments: Sequence[str]) -> None:
    from dbt.cli.main import cli

    cli(list(arguments))


def _python(arguments: Sequence[str]) -> None:
    """Code or a module; whatever else somebody wants of Python he gets from a new interpreter."""
    # Options that a parent hands on to what it starts: these say nothing to a fork of it.
    rest = list(dropwhile(lambda one: one == "-u" or one.startswith("-W"), arguments))
    if len(rest) < 2 or rest[0] not in ("-c", "-m"):
        os.execv(_INTERPRETER, [_INTERPRETER, *arguments])
    kind, what, *others = rest
    sys.argv = [kind, *others]
    if kind == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(compile(what, "<string>", "exec"), vars(sys.modules["__main__"]))


_INTERPRETER = sys.executable
PROGRAMS: dict[str, Callable[[Sequence[str]], None]] = {"quantlytic": _quantlytic, "dbt": _dbt, "python": _python}


def _warm_dbt() -> None:
    """Parse the project once: dbt writes code for its classes when it first uses them, for seconds."""
    from dbt.cli.main import dbtRunner

    project = settings.DBT_PROJECT
    # The static parser would start threads.
    options = ["--quiet", "--no-static-parser", "--project-dir", str(project), "--profiles-dir", str(project)]
    with tempfile.TemporaryDirectory() as target:
        done = dbtRunner().invoke(["parse", *options, "--target-path", target, "--log-path", target])
    if not done.success:
        raise RuntimeError(f"dbt does not parse {project}: {done.exception}")


def _warm_kernels() -> None:
    """Compute features of a few bars: numba loads what it compiles with, and machine code, when it is first used."""
    for feature in Registry().features(["core"]):
        feature.kernel().batch(np.ones((len(feature.inputs), 8)), np.array([0]), np.array([8]))


def _compile_engine() -> None:
    """Trade and settle a little in a process that ends: what it compiles is kept, and polars' threads go with it."""
    compiling = os.fork()
    if compiling:
        os.waitpid(compiling, 0)
        return
    try:
        prepare()
        moment = datetime(2000, 1, 3, tzinfo=UTC)
        ordered = Ordered(1, "A", 1, "market", "entry", moment)
        charged = BrokerReport("charged", ordered, moment, moment.date(), commission=1.0)
        settle(State(1, 1.0), EngineSettings(capital=1.0), ("A",), np.zeros((c.STATIC_FIELDS, 1)), [charged])
    except BaseException:
        traceback.print_exc()
    os._exit(0)


def serve(listener: socket.socket) -> None:
    """Fork for each client, until standard input ends: then whoever started this server has ended."""
    gc.collect()
    # What is there now stays: collections would only make copies of its pages in each fork.
    gc.freeze()
    gc.enable()
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            try:
                _look_after(connection)
            except BaseException:
                traceback.print_exc()
            os._exit(1)
        connection.close()
        _reap()


def _reap() -> None:
    """Forget those who looked after programs that have ended."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


def _look_after(connection: socket.socket) -> None:
    """Fork the program that the client asks for, tell the client how it ended, and end it when the client is gone."""
    header, given, _, _ = socket.recv_fds(connection, 8, _MOST_FILES)
    name, arguments, environment, directory, numbers = json.loads(_read(connection, int.from_bytes(header, "big")))
    program = os.fork()
    if program == 0:
        connection.close()
        _number(given, numbers)
        _become(name, arguments, environment, directory)
    for file in given:
        os.close(file)
    ended = os.pidfd_open(program)
    while ended not in select.select([ended, connection], [], [])[0]:
        wanted = connection.recv(1)
        if wanted:
            os.kill(program, wanted[0])
        else:
            _kill(program)
            os.waitpid(program, 0)
            os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(program, 0)[1])
    connection.sendall(code.to_bytes(4, "big", signed=True))
    os._exit(0)


def _kill(program: int) -> None:
    """Kill a program and what it has started."""
    try:
        os.killpg(program, signal.SIGKILL)
    except ProcessLookupError:
        # It has no session of its own yet.
        os.kill(program, signal.SIGKILL)


def _read(connection: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(size - len(parts))
        if not part:
            raise EOFError("the client went away before it had said what it wants")
        parts += part
    return bytes(parts)


def _number(given: Sequence[int], numbers: Sequence[int]) -> None:
    """Give open files the numbers that the client has them under, by which arguments may name them."""
    beyond = [fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, max(numbers) + 1) for file in given]
    for file in given:
        os.close(file)
    for file, number in zip(beyond, numbers, strict=True):
        os.dup2(file, number)
        os.close(file)


def _become(name: str, arguments: list[str], environment: dict[str, str], directory: str) -> None:
    """Be the program, and exit as it does."""
    os.setsid()
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [name, *arguments]
    # A command takes its name from the main module, which is not this one.
    sys.modules["__main__"] = ModuleType("__main__")
    code = 0
    try:
        PROGRAMS[name](arguments)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    # As an interpreter ends, but for taking the modules apart.
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code & 0xFF)


def main(directory: str, descriptor: str) -> None:
    """Import everything, then serve the clients of the listening socket `descriptor`."""
    # What is imported stays; collections would only look through it again and again.
    gc.disable()
    # First, for others wait for it: each process would compile for itself what is not kept yet.
    _warm_kernels()
    _compile_engine()
    Path(directory, COMPILED).touch()
    for name in _IMPORTS:
        importlib.import_module(name)
    from sklearn.utils import all_estimators

    # MLflow imports all of them when it keeps a model.
    all_estimators()
    _warm_dbt()
    # What a program starts comes from here too: dbt, and Python.
    settings.PROGRAMS = Path(directory)
    sys.executable = str(settings.PROGRAMS / "python")
    spawn.set_executable(sys.executable)
    with socket.socket(fileno=int(descriptor)) as listener:
        serve(listener)


if __name__ == "__main__":
    main(*sys.argv[1:])
