"""What holds for every test: the profile is each test's own choice, whatever the shell that runs them is set up for."""

import ctypes
import gc
import os
import sys
import time
from collections.abc import Generator, Iterator
from multiprocessing import spawn
from pathlib import Path
from typing import Any

import pytest

from quantlytic_assets import settings
from quantlytic_tests.forking.programs import forked_programs
from quantlytic_tests.forking.server import COMPILED

os.environ.pop("QUANTLYTIC_PROFILE", None)
# With two, DuckDB takes twice the processor time for what a test asks: one thread looks again and again whether the
# other is done. Scenarios of `end_to_end` have the usual two where others have one, and rows must be the same.
os.environ["QUANTLYTIC_DUCKDB_THREADS"] = "1"

# Files whose tests take half a minute and more where three workers share two processors, the longest first: begun last,
# one of them would keep a worker busy when the others have nothing left to do. (`make test` hands files out in this
# order.) The first two go well together: one works with two processes at a time, the other mostly waits for servers
# that it has struck.
_LONG = (
    "end_to_end/test_promises.py",
    "faults/test_short.py",
    "end_to_end/test_serve.py",
    "services/test_killed_account.py",
    "live/test_killed.py",
    "dbt/test_dbt_models.py",
    "storage/test_maintenance.py",
    "storage/test_landing.py",
    "feeds/test_feed.py",
    "end_to_end/test_pages.py",
    "storage/test_lake.py",
    "commands/test_backfill.py",
    "end_to_end/test_services.py",
    "dbt/test_declared_features.py",
    "dbt/test_usable_bars.py",
    "storage/test_compaction.py",
    "services/test_paper_account.py",
    "live/test_broker_day.py",
    "storage/test_bus.py",
    "learning/test_registry.py",
    "storage/test_migrations.py",
    "live/test_graph.py",
    "services/test_broker_account.py",
    "assets/test_run_retention.py",
    "commands/test_cli.py",
    "feeds/test_command.py",
    "commands/test_import.py",
    "live/test_trading.py",
    "live/test_command.py",
    "end_to_end/test_import.py",
    "end_to_end/test_vendors.py",
    "end_to_end/test_graph.py",
    "end_to_end/test_command_line.py",
    "commands/test_demo.py",
    "storage/test_lake_turns.py",
    "commands/test_training_history.py",
)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Import all tests with Python's collector off, and let it look only at what is made afterwards.

    What is imported stays: to look through it, 700,000 objects, takes more than half a second each time.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long files come first; else everything stays in its order."""
    root = os.path.dirname(__file__)
    place = {os.path.join(root, *name.split("/")): i for i, name in enumerate(_LONG)}
    items.sort(key=lambda item: place.get(str(item.path), len(place)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    """After a file's last test, give back what the C library keeps of freed memory: a hundred megabytes after some."""
    done = yield
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None and (nextitem is None or nextitem.path != item.path):
        trim(0)
    return done


# Where programs are that are forked from a process that has imported everything. pytest-xdist's workers share one: it
# takes a quarter of a minute of a core to start and 400 MB. It compiles all kernels where that is not done yet: for
# them it begins at once, and they wait for it, since each would compile for itself.
_PROGRAMS = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    """Set up the programs that are forked, where this is no worker."""
    if not hasattr(config, "workerinput"):
        programs = forked_programs(at_once=bool(config.getoption("numprocesses", None)))
        config.stash[_PROGRAMS] = programs.__enter__()
        config.add_cleanup(lambda: programs.__exit__(None, None, None))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of pytest-xdist where the programs are."""
    node.workerinput["programs"] = str(node.config.stash[_PROGRAMS])


@pytest.fixture(scope="session", autouse=True)
def _programs(pytestconfig: pytest.Config) -> Iterator[None]:
    """Programs that tests and the code under test start are forked ones."""
    installed = settings.PROGRAMS
    told = getattr(pytestconfig, "workerinput", None)
    settings.PROGRAMS = Path(told["programs"]) if told else pytestconfig.stash[_PROGRAMS]
    while told and not (settings.PROGRAMS / COMPILED).exists():
        time.sleep(0.02)
    # Multiprocessing starts its fork server with it.
    spawn.set_executable(settings.PROGRAMS / "python")
    yield
    settings.PROGRAMS = installed
    spawn.set_executable(sys.executable)
