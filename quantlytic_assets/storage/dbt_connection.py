"""dbt's connection to the lake that `Lake.dbt_environment` describes, as a plugin of dbt-duckdb.

Not the profile: dbt parses the whole project anew where what a profile says of the connection differs from the last
time, which made each new installation pay for it.
"""

from __future__ import annotations

import os
from typing import Any

import duckdb
from dbt.adapters.duckdb.credentials import DuckDBCredentials
from dbt.adapters.duckdb.plugins import BasePlugin

from quantlytic_assets.storage.lake_catalog import attach
from quantlytic_assets.storage.object_store import create_secret

_SECRETS = {"catalog": "QUANTLYTIC_LAKE_PG_", "data": "QUANTLYTIC_LAKE_S3_"}


class Plugin(BasePlugin):
    """Gives dbt's connection the lake, before dbt attaches it: it then finds that it has one."""

    def update_connection_config(self, creds: DuckDBCredentials, config: dict[str, Any]) -> None:
        """Have DuckDB use the lake's extensions and keep to its limits."""
        config |= {
            "extension_directory": os.environ["QUANTLYTIC_DUCKDB_EXTENSIONS"],
            "allow_unsigned_extensions": os.environ["QUANTLYTIC_DUCKDB_UNSIGNED"],
            "memory_limit": os.environ["QUANTLYTIC_DUCKDB_MEMORY"],
            "threads": os.environ["QUANTLYTIC_DUCKDB_THREADS"],
        }

    def configure_connection(self, conn: duckdb.DuckDBPyConnection) -> None:
        """Attach the lake, with the secrets that it needs where it is on servers."""
        for name in os.environ["QUANTLYTIC_LAKE_EXTENSIONS"].split(","):
            conn.load_extension(name)
        if os.environ["QUANTLYTIC_LAKE_ON_SERVERS"]:
            for name, prefix in _SECRETS.items():
                create_secret(conn, name, _said(prefix))
        attach(
            conn,
            os.environ["QUANTLYTIC_LAKE_CATALOG"],
            os.environ["QUANTLYTIC_LAKE_DATA"],
            os.environ["QUANTLYTIC_LAKE_OPTIONS"],
        )


def _said(prefix: str) -> dict[str, str | bool]:
    """What the environment says under a prefix."""
    return {key.removeprefix(prefix): value for key, value in os.environ.items() if key.startswith(prefix)}
