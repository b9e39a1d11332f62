"""How DuckDB attaches a lake."""

from __future__ import annotations

import duckdb


def attach(connection: duckdb.DuckDBPyConnection, catalog: str, data_path: str, *options: str) -> None:
    """Attach the lake of a catalog to a connection, as `lake`. The extensions and secrets that it needs are there."""
    # The catalog's own word for where the data is, is for others.
    given = ", ".join((f"DATA_PATH '{data_path}', OVERRIDE_DATA_PATH", *options))
    connection.execute(f"ATTACH '{catalog}' AS lake ({given})")
