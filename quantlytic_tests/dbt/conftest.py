"""A lake in a temporary directory, and dbt run on it as the feature assets run it: as a command."""

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from quantlytic_assets import settings
from quantlytic_assets.schemas.features import FAMILIES
from quantlytic_assets.services.features import families, run_environment
from quantlytic_tests.dbt.parsing import give_parsed
from quantlytic_tests.storage.places import Place, opened

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "quantlytic_assets" / "vendors" / "sample_data"


class Warehouse:
    """A lake that tests fill with clean bars, and dbt over it."""

    def __init__(self, place: Place):
        self.resources = place.resources
        self.lake = place.resources.lake
        self.target = place.settings.directory("dbt") / "target"
        self.secrets = place.secrets
        give_parsed(self.target)

    def add(self, dataset: str, bars: pl.DataFrame, sessions: pl.DataFrame, delay: timedelta = timedelta()) -> None:
        """Put clean bars and sessions of a dataset there; bars need symbol, session, times, prices and volume."""
        # What no test here is about, as cleaning would have written it.
        usual = {
            "vendor": pl.lit("test"),
            "fetched_at": pl.col("close_time"),
            "adjustment": pl.lit("none"),
            "flags": pl.lit([], dtype=pl.List(pl.String)),
        }
        clean = bars.select(
            pl.lit(dataset).alias("dataset"),
            *bars.columns,
            *(value.alias(name) for name, value in usual.items() if name not in bars.columns),
            (pl.col("close_time") + delay).alias("available_at"),
        )
        hours = sessions.select(pl.lit(dataset).alias("dataset"), *sessions.columns)
        self.lake.replace([("clean.bars", "false", [], clean), ("clean.sessions", "false", [], hours)])

    def copy(self, dataset: str, name: str) -> None:
        """Have the lake hold a dataset, and what was built of it, under another name as well."""
        tables = self.lake.query(
            "SELECT DISTINCT schema_name || '.' || table_name AS name FROM duckdb_columns() JOIN duckdb_tables() "
            "USING (database_name, schema_name, table_name) WHERE database_name = 'lake' AND column_name = 'dataset'"
        )
        with self.lake.transaction() as connection:
            for table in tables["name"]:
                rows = f"SELECT * REPLACE ('{name}' AS dataset) FROM {table} WHERE dataset = '{dataset}'"
                connection.execute(f"INSERT INTO {table} {rows}")

    def command(
        self,
        dataset: str,
        start: str,
        end: str,
        interval: str,
        intervals: Sequence[str],
        horizons: Sequence[int] = (1,),
        delay: timedelta = timedelta(),
        incomplete: str = "drop",
        features: Sequence[str] = ("core",),
        plugins: Sequence[str] = (),
    ) -> tuple[list[str], dict[str, str]]:
        """The command line and environment of a build of one range."""
        environment = os.environ | self.lake.dbt_environment()
        environment |= {
            "QUANTLYTIC_RUN_DATASET": dataset,
            "QUANTLYTIC_RUN_START": start,
            "QUANTLYTIC_RUN_END": end,
            "QUANTLYTIC_RUN_INTERVAL": interval,
            "QUANTLYTIC_RUN_INTERVALS": ",".join(intervals),
            "QUANTLYTIC_RUN_HORIZONS": ",".join(str(horizon) for horizon in horizons),
            "QUANTLYTIC_RUN_DELAY": str(delay.total_seconds()),
            "QUANTLYTIC_RUN_INCOMPLETE": incomplete,
            **run_environment(features, plugins),
            "DBT_TARGET_PATH": str(self.target),
            "DBT_LOG_PATH": str(self.target),
        }
        project = str(ROOT / "dbt_project")
        dbt = str(settings.PROGRAMS / "dbt")
        places = ["--project-dir", project, "--profiles-dir", project]
        command = [dbt, "--no-use-colors", "build", "--no-write-json", *places]
        return [*command, "--exclude", *sorted(FAMILIES.keys() - families(features, plugins))], environment

    def build(
        self, dataset: str, start: str, end: str, interval: str, intervals: Sequence[str], *more, **options
    ) -> str:
        """Run models and tests for the sessions [start, end) and return what dbt said; a failing run fails the test."""
        command, environment = self.command(dataset, start, end, interval, intervals, *more, **options)
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        # Wherever the lake is: what was parsed for another one will do.
        assert "Unable to do partial parsing" not in done.stdout
        return done.stdout

    def table(self, name: str, dataset: str) -> pl.DataFrame:
        """A dataset's rows of a table, in the order of its key, without the dataset's name."""
        rows = self.lake.query(f"SELECT * EXCLUDE (dataset) FROM {name} WHERE dataset = ?", [dataset])
        return rows.sort([name for name in ("symbol", "interval", "horizon", "open_time") if name in rows.columns])


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory) -> Iterator[Warehouse]:
    """One lake for a module's tests; each uses a dataset of its own."""
    with opened("embedded", tmp_path_factory.mktemp("warehouse")) as place:
        yield Warehouse(place)


@pytest.fixture
def served_warehouse(tmp_path) -> Iterator[Warehouse]:
    """A fresh lake of the servers'."""
    with opened("services", tmp_path) as place:
        yield Warehouse(place)


@pytest.fixture(scope="session")
def sample() -> Callable[[str], pl.DataFrame]:
    """Reads a dataset of the shipped sample data."""
    return lambda dataset: pl.read_parquet(SAMPLE / f"{dataset}.parquet")
