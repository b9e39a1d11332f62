"""Files of new rows, which a transaction makes part of a table: each row is written once, and under no lock.

They lie among DuckLake's own files and are named like them. Those of a writer that fails or is killed belong to nobody,
and the lake's upkeep deletes them. Called in dbt's process, where the environment says which lake it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import date
from typing import TYPE_CHECKING
from uuid import uuid4

import polars as pl

if TYPE_CHECKING:
    import duckdb

# A row group of all columns is what writers and readers hold at a time, 32 MB; a reader of one symbol skips others.
_GROUP_VALUES = 4_000_000
_GROUP_ROWS = 122_880
# The bytes of a frame that may still be there when the next one is.
_MOST_BESIDE = 64_000_000


class NewFiles:
    """Files of rows for the table `schema.name`, split by the expressions by which the table's files are.

    Partition values stand in paths as they are: names of datasets and intervals are plain.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, table: str, partitioned_by: Sequence[str]):
        self.table = table
        self.paths: list[str] = []
        # The newest session that a row is of.
        self.last_session: date | None = None
        self._partition = [_partition(expression) for expression in partitioned_by]
        self._schema = _schema(connection, table)

    def write(self, frames: Iterable[pl.DataFrame]) -> None:
        """Write polars frames, each while the next one is made; a large one is let go before."""
        with ThreadPoolExecutor(1) as writer:
            writing: Future[None] | None = None
            for frame in frames:
                if writing is not None:
                    writing.result()
                writing = None if frame.is_empty() else writer.submit(self._write, frame)
                if writing is not None and frame.estimated_size() > _MOST_BESIDE:
                    writing.result()
                    writing = None
                del frame
            if writing is not None:
                writing.result()

    @property
    def rows(self) -> str:
        """The rows, as SQL reads them."""
        return f"read_parquet({self.paths}, hive_partitioning = false)"

    def insertion(self, connection: duckdb.DuckDBPyConnection) -> str:
        """The statement that makes the files part of the table; it is asked for in the transaction that runs it.

        Where the table has got a column since, for another dataset, the rows are written again: DuckLake 1.0 takes a
        column that a file lacks for one without nulls.
        """
        if _schema(connection, self.table) != self._schema:
            return f"INSERT INTO lake.{self.table} BY NAME SELECT * FROM {self.rows}"
        schema, name = self.table.split(".")
        return (
            f"CALL ducklake_add_data_files('lake', '{name}', {self.paths}, schema => '{schema}', "
            "hive_partitioning => true)"
        )

    def _write(self, frame: pl.DataFrame) -> None:
        given = frame.columns
        last = frame["session"].max()
        self.last_session = last if self.last_session is None else max(self.last_session, last)
        rows = frame.select(
            pl.col(name) if name in given else pl.lit(None, dtype=dtype).alias(name)
            for name, dtype in self._schema.items()
        )
        group = min(_GROUP_ROWS, max(_GROUP_VALUES // rows.width, 1))
        root = os.environ["QUANTLYTIC_LAKE_DATA"] + self.table.replace(".", "/")
        for values, part in self._parts(rows):
            place = "/".join(f"{name}={value}" for name, value in values.items())
            path = f"{root}/{place}/ducklake-{uuid4()}.parquet"
            part.write_parquet(
                path,
                compression="snappy",
                row_group_size=group,
                storage_options=_store_options() if path.startswith("s3://") else None,
                credential_provider=None,
                mkdir=not path.startswith("s3://"),
            )
            self.paths.append(path)

    def _parts(self, rows: pl.DataFrame) -> list[tuple[dict[str, object], pl.DataFrame]]:
        """The rows by partition, with its values. Most frames are of one partition, and are not copied."""
        values = rows.select(self._partition)
        first = values.row(0, named=True)
        # Compared with the first row: that takes a fraction of what it takes to find all values that there are.
        if values.select(pl.all_horizontal(pl.col(name).eq_missing(one).all() for name, one in first.items())).item():
            return [(first, rows)]
        found = values.unique(maintain_order=True)
        return [
            (one, rows.filter(pl.all_horizontal(values[name].eq_missing(value) for name, value in one.items())))
            for one in found.iter_rows(named=True)
        ]


def _partition(expression: str) -> pl.Expr:
    """What a file has one value of, by the name that it has in paths: a column, or year(column)."""
    year = re.fullmatch(r"year\((\w+)\)", expression)
    return pl.col(year[1]).dt.year().alias("year") if year else pl.col(expression.strip('"'))


def _schema(connection: duckdb.DuckDBPyConnection, table: str) -> pl.Schema:
    return connection.execute(f"SELECT * FROM lake.{table} LIMIT 0").pl().schema


def _store_options() -> dict[str, str | int]:
    """What polars needs to write to the lake's bucket, from the variables of dbt's profile."""
    said = {name: os.environ.get(f"QUANTLYTIC_LAKE_S3_{name}", "") for name in ("ENDPOINT", "USE_SSL", "URL_STYLE")}
    options: dict[str, str | int] = {
        "aws_access_key_id": os.environ["QUANTLYTIC_LAKE_S3_KEY_ID"],
        "aws_secret_access_key": os.environ["QUANTLYTIC_LAKE_S3_SECRET"],
        "aws_region": os.environ["QUANTLYTIC_LAKE_S3_REGION"],
        "aws_virtual_hosted_style_request": str(said["URL_STYLE"] != "path").lower(),
        # A store that is being started again answers after a while.
        "max_retries": 8,
    }
    if said["ENDPOINT"]:
        scheme = "https" if said["USE_SSL"] == "true" else "http"
        options |= {"aws_endpoint_url": f"{scheme}://{said['ENDPOINT']}", "aws_allow_http": "true"}
    return options
