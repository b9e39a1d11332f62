"""An installation in a directory of its own, the `quantlytic` command run on it, and how the rows of two are compared.

Which installations the tests share is in `conftest`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
import yaml

from quantlytic_assets import settings
from quantlytic_assets.resources import make_resources
from quantlytic_assets.settings import Settings

COMMAND = Path(sys.executable).parent / "quantlytic"
# Long enough for a machine that is busy with other things; whoever waits this long has hung.
_PATIENCE = 300

# What a run writes down about itself. All other columns must be the same whoever made the rows, and however often.
RUN_COLUMNS: dict[str, tuple[str, ...]] = {
    "clean.bars": ("fetched_at",),
    "clean.quarantine": ("raw", "source_object", "source_row"),
    "clean.coverage": ("checked_at", "attempts"),
    "clean.sessions": (),
    "clean.corporate_actions": ("recorded_at", "source_object", "source_row"),
    "clean.repairs": (),
    "clean.vendor_differences": (),
    "features.bars": (),
    "features.indicators": (),
    "features.labels": (),
    "ml.predictions": ("model_version",),
    "trading.orders": ("created_at", "model_version"),
    "trading.fills": (),
    "trading.positions": (),
    "trading.equity": (),
}

# What each command writes goes to files of its own, whatever writes it; the exit codes are printed at the end.
_IN_TURN = """
import json, os, sys, traceback
from quantlytic_assets import cli

def to(target, descriptor):
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(target, descriptor)

directory, commands = sys.argv[1], json.loads(sys.argv[2])
kept, codes = os.dup(1), {}
for i, arguments in commands:
    for descriptor, name in ((1, "out"), (2, "err")):
        file = os.open(os.path.join(directory, f"{i}.{name}"), os.O_WRONLY | os.O_CREAT)
        to(file, descriptor)
        os.close(file)
    cli._installation = cli.Installation()
    try:
        cli.main(arguments)
    except SystemExit as end:
        codes[i] = end.code
    except BaseException:
        traceback.print_exc()
        codes[i] = 1
to(kept, 1)
print(json.dumps(codes))
"""

Universe = dict[str, dict[str, dict[str, Any]]]


@contextmanager
def dagster_instance(home: Path) -> Iterator[dg.DagsterInstance]:
    """The Dagster instance of an installation, as a process with its DAGSTER_HOME opens it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(home / "dagster"))
        with dg.DagsterInstance.get() as instance:
            yield instance


@dataclass(frozen=True)
class Done:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Standard output, which must be one JSON text and nothing else."""
        return json.loads(self.out)

    def expect(self, code: int) -> Done:
        """Itself, when the exit code is the one that is wanted and no traceback was shown."""
        assert self.code == code, f"exit {self.code}\n{self.out}\n{self.err}"
        assert "Traceback" not in self.out + self.err, self.err
        return self


class Installed:
    """An installation below `root`: `universe.yaml` and the data directory `home`.

    With the profile `services` it is on the servers that the environment names, in a namespace of its own.
    """

    def __init__(self, root: Path, universe: Universe, profile: str = "embedded"):
        self.root = root
        self.profile = profile
        self.namespace = f"e{uuid.uuid4().hex[:8]}" if profile == "services" else ""
        self.home = root / "home"
        self.universe_path = root / "universe.yaml"
        root.mkdir(parents=True, exist_ok=True)
        self.declare(universe)

    def declare(self, universe: Universe) -> None:
        """Write the universe file anew."""
        self.universe = universe
        self.universe_path.write_text(yaml.safe_dump(universe, sort_keys=False))

    def settings(self) -> Settings:
        """The settings of this installation, for work in this process."""
        return Settings(universe=self.universe_path, home=self.home, profile=self.profile, namespace=self.namespace)

    def environment(self, **variables: str) -> dict[str, str]:
        """What the command is started with: nothing of ours but this installation, and `variables`."""
        # Compiling the libraries anew in each of a hundred processes would take most of the time.
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("QUANTLYTIC_", "DAGSTER_", "DBT_")) and name != "PYTHONDONTWRITEBYTECODE"
        }
        mine = {"QUANTLYTIC_HOME": str(self.home), "QUANTLYTIC_UNIVERSE": str(self.universe_path)}
        threads = "QUANTLYTIC_DUCKDB_THREADS"
        mine |= {threads: os.environ[threads]} if threads in os.environ else {}
        if self.profile == "services":
            servers = ("QUANTLYTIC_KAFKA", "QUANTLYTIC_S3_", "QUANTLYTIC_POSTGRES_")
            mine |= {name: value for name, value in os.environ.items() if name.startswith(servers)}
            mine |= {"QUANTLYTIC_PROFILE": self.profile, "QUANTLYTIC_NAMESPACE": self.namespace}
        return {**kept, **mine, **variables}

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen:
        """Start the command in a process group of its own."""
        return subprocess.Popen(
            [str(settings.PROGRAMS / "quantlytic"), *arguments],
            env=self.environment(**variables),
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, **variables: str) -> Done:
        """Run the command to its end."""
        process = self.start(*arguments, **variables)
        try:
            out, err = process.communicate(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise
        return Done(process.returncode, out, err)

    def run_all(self, commands: Sequence[Sequence[str]], at_once: int = 2, **variables: str) -> list[Done]:
        """Run several commands, so many at a time; results in the order of the commands."""
        with ThreadPoolExecutor(at_once) as crew:
            return list(crew.map(lambda command: self.run(*command, **variables), commands))

    def run_in_turn(self, commands: Sequence[Sequence[str]], at_once: int = 1, **variables: str) -> list[Done]:
        """Run several commands through the command's entry point, all in one process or in `at_once` of them.

        For what commands say: most of what a short one costs is starting it. Each has an installation of its own
        there, as in a process of its own. Results in the order of the commands.
        """
        with tempfile.TemporaryDirectory() as written, ThreadPoolExecutor(at_once) as crew:
            parts = [[(i, list(commands[i])) for i in range(part, len(commands), at_once)] for part in range(at_once)]
            done = list(crew.map(lambda part: self._in_turn(part, Path(written), variables), parts))
            for process in done:
                assert process.returncode == 0, process.stderr
            codes = {int(i): code for process in done for i, code in json.loads(process.stdout).items()}
            said = [(Path(written, f"{i}.out"), Path(written, f"{i}.err")) for i in range(len(commands))]
            return [Done(codes[i], out.read_text(), err.read_text()) for i, (out, err) in enumerate(said)]

    def _in_turn(
        self, commands: list[tuple[int, list[str]]], directory: Path, variables: Mapping[str, str]
    ) -> subprocess.CompletedProcess:
        return subprocess.run(
            [str(settings.PROGRAMS / "python"), "-c", _IN_TURN, str(directory), json.dumps(commands)],
            env=self.environment(**variables),
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
        )

    def rows(self, query: str) -> pl.DataFrame:
        """Rows of the lake."""
        connection = make_resources(self.settings()).lake.reader()
        try:
            return connection.execute(query).pl()
        finally:
            connection.close()

    def tables(self, where: str = "true") -> dict[str, pl.DataFrame]:
        """Every table's rows that meet `where`, in one order, without RUN_COLUMNS. A table not made yet is left out."""
        connection = make_resources(self.settings()).lake.reader()
        try:
            known = {
                f"{schema}.{name}": {column for (column,) in columns}
                for schema, name, columns in (
                    (
                        schema,
                        name,
                        connection.execute(
                            "SELECT column_name FROM duckdb_columns() WHERE database_name = 'lake' "
                            "AND schema_name = ? AND table_name = ?",
                            [schema, name],
                        ).fetchall(),
                    )
                    for schema, name in connection.execute(
                        "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = 'lake' "
                        "UNION SELECT schema_name, view_name FROM duckdb_views() WHERE database_name = 'lake'"
                    ).fetchall()
                )
            }
            found = {}
            for table, dropped in RUN_COLUMNS.items():
                if table in known:
                    condition = where if "dataset" in known[table] else "true"
                    frame = connection.execute(f"SELECT * FROM {table} WHERE {condition}").pl()
                    found[table] = in_order(frame.drop(dropped))
            return found
        finally:
            connection.close()

    def copied_to(self, root: Path, *, with_lake: bool, universe: Universe | None = None) -> Installed:
        """A copy that nothing of this one is touched through. Without its lake it has no models either."""
        other = Installed(root, universe or self.universe)
        without = shutil.ignore_patterns("*.lock") if with_lake else shutil.ignore_patterns("mlflow", "lake")
        # DuckDB's extensions stay links: of each copy a process that opens it would load 30 MB.
        shutil.copytree(self.home, other.home, ignore=without, symlinks=True)
        return other

    def fingerprint(self, *parts: str) -> dict[str, str]:
        """A digest of each file in these parts of the data directory (all when none is named)."""
        return {
            str(path.relative_to(self.home)): hashlib.sha256(path.read_bytes()).hexdigest()
            for part in parts or ("",)
            for path in sorted((self.home / part).rglob("*"))
            # SQLite's own scratch files come and go with readers.
            if path.is_file() and not path.name.endswith(("-wal", "-shm"))
        }

    def kill_in(self, step: str, after: float, *arguments: str) -> bool:
        """Start the command and kill its whole process group `after` seconds into a Dagster step.

        Returns whether it was killed; it may have ended before, but only well.
        """
        before = set(self._event_logs())
        process = self.start(*arguments)
        deadline = time.monotonic() + _PATIENCE
        while process.poll() is None and not self._started(step, set(self._event_logs()) - before):
            assert time.monotonic() < deadline, f"{step} was never reached"
            time.sleep(0.02)
        time.sleep(after)
        alive = process.poll() is None
        if alive:
            os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        if not alive:
            Done(process.returncode, out, err).expect(0)
        return alive

    def _event_logs(self) -> Iterable[Path]:
        return (self.home / "dagster" / "history" / "runs").glob("*-*.db")

    @staticmethod
    def _started(step: str, logs: Iterable[Path]) -> bool:
        for path in logs:
            try:
                with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as log:
                    query = "SELECT 1 FROM event_logs WHERE dagster_event_type = 'STEP_START' AND step_key = ?"
                    if log.execute(query, [step]).fetchone():
                        return True
            except sqlite3.OperationalError:
                # The log is being made just now.
                continue
        return False


def in_order(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows in an order that depends on them alone."""
    keys = [name for name, kind in frame.schema.items() if not isinstance(kind, pl.List)]
    return frame.sort(keys, nulls_last=True)


def assert_same(found: Mapping[str, pl.DataFrame], wanted: Mapping[str, pl.DataFrame], tables: Sequence[str]) -> None:
    """Every one of the tables has the same rows in both, to the last bit."""
    for table in tables:
        assert len(wanted[table]) > 0, f"{table} is empty, which would prove nothing"
        difference = _difference(found[table], wanted[table])
        assert difference is None, f"{table}: {difference}"


def _difference(found: pl.DataFrame, wanted: pl.DataFrame) -> str | None:
    if found.equals(wanted):
        return None
    if found.shape != wanted.shape:
        return f"{found.shape} rows and columns, {wanted.shape} wanted"
    differing = [name for name in wanted.columns if not found[name].equals(wanted[name])]
    at = (found[differing[0]].ne_missing(wanted[differing[0]])).arg_true()[:1] if differing else []
    return f"{differing} differ, first {[(found.row(i, named=True), wanted.row(i, named=True)) for i in at]}"


def assert_close(found: pl.DataFrame, wanted: pl.DataFrame, keys: Sequence[str]) -> None:
    """The same rows, their numbers equal to 1e-9 of their size."""
    assert len(wanted) > 0
    assert found.sort(keys).select(keys).equals(wanted.sort(keys).select(keys))
    beside = found.sort(keys), wanted.sort(keys)
    for name, kind in wanted.schema.items():
        one, other = beside[0][name], beside[1][name]
        if not kind.is_float():
            assert one.equals(other), name
            continue
        # A price of 0.0 does not occur; what is near zero (a MACD) is small against the price it is made of.
        assert one.is_null().equals(other.is_null()), name
        scale = beside[1].select(pl.max_horizontal(pl.col(name).abs(), pl.col("close").abs() * 1e-3)).to_series()
        worst = ((one - other).abs() / scale).max()
        assert worst is None or worst <= 1e-9, f"{name} differs by {worst}"


class Crew:
    """Long work that is begun before the tests that look at its outcome, two pieces at a time."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(2)
        self._begun: dict[str, Any] = {}

    def begin(self, name: str, work: Callable[[], Any]) -> None:
        """Begin a piece of work, once."""
        if name not in self._begun:
            self._begun[name] = self._pool.submit(work)

    def outcome(self, name: str) -> Any:
        """What the work came to; its exception is raised here."""
        return self._begun[name].result()

    def end(self) -> None:
        """Let what has not begun yet go, and wait for the rest."""
        self._pool.shutdown(wait=True, cancel_futures=True)
