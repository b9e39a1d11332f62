"""What leaves the lake, and the archive where that is asked for, because a dataset keeps no more of it.

From when on a dataset keeps its sessions is decided in `market_data.retention`. Rows of other tables (predictions,
orders) stay: they are a record of what was done. So do corporate actions, which are few and which prices that are kept
may need.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import obstore
import polars as pl

from quantlytic_assets.storage.archive import Archive
from quantlytic_assets.storage.lake import Lake
from quantlytic_assets.storage.manifests import Stored, compaction_number, list_stored

_SCHEMAS = ("clean", "features")
# Made of all of a dataset's archive, whatever the session: deleted, they would come back.
_STAYS = ("clean.corporate_actions",)
# Rejected records and rejected reports of corporate actions would come back as well.
_GOES = {"clean.quarantine": "source_object NOT LIKE '%/refused/%' AND source_object NOT LIKE '%/actions/%'"}


@dataclass(frozen=True)
class ArchiveExpired:
    """Partitions, objects (manifests among them) and bytes that left the archive."""

    partitions: int = 0
    objects: int = 0
    bytes: int = 0


def expire_lake(lake: Lake, dataset: str, before: date) -> dict[str, int]:
    """Delete a dataset's rows of sessions before `before` from every table of bars; rows deleted by table.

    All in one transaction. Files become smaller with the lake's maintenance, and time travel still sees the rows until
    it expires the snapshots.
    """
    tables = [
        f"{schema}.{table}"
        for schema, table in lake.connect()
        .execute(
            "SELECT schema_name, table_name FROM duckdb_tables() "
            "SEMI JOIN (SELECT database_name, schema_name, table_name FROM duckdb_columns() "
            "WHERE column_name IN ('dataset', 'session') GROUP BY ALL HAVING count(*) = 2) "
            "USING (database_name, schema_name, table_name) "
            "WHERE database_name = 'lake' AND schema_name IN (?, ?) ORDER BY ALL",
            list(_SCHEMAS),
        )
        .fetchall()
    ]
    condition = "dataset = ? AND session < ?"
    expired = {}
    for table in tables:
        if table in _STAYS:
            continue
        where = f"{condition} AND {_GOES[table]}" if table in _GOES else condition
        found = lake.query(f"SELECT count(*) AS rows FROM {table} WHERE {where}", [dataset, before])["rows"].item()
        if found:
            expired[table] = (where, found)
    if expired:
        lake.replace([(table, where, [dataset, before], pl.DataFrame()) for table, (where, _) in expired.items()])
    return {table: rows for table, (_, rows) in expired.items()}


def expire_archive(archive: Archive, dataset: str, before: date) -> ArchiveExpired:
    """Delete a dataset's partitions with keys before `before` from the archive, for good.

    Killed at any moment it leaves nothing that readers take for damage, and the next call goes on. What records were
    landed stays known: they are not landed again from the bus.
    """
    folders: dict[str, list[Stored]] = {}
    for one in list_stored(archive.store, f"{dataset}/", f"{dataset}/partition="):
        folder = one.folder.rpartition("/")[2]
        if not folder.startswith("partition="):
            continue
        if folder.removeprefix("partition=") < before.isoformat():
            folders.setdefault(folder, []).append(one)
    # An object that a manifest in force names must not be gone, so manifests go first, and the older ones of them: what
    # they name may be gone already.
    for stored in folders.values():
        for one in sorted(stored, key=lambda one: (not one.name.endswith(".json"), compaction_number(one.name) or 0)):
            try:
                obstore.delete(archive.store, one.path)
            except FileNotFoundError:
                # Another process deletes the same.
                continue
    gone = [one for stored in folders.values() for one in stored]
    return ArchiveExpired(len(folders), len(gone), sum(one.size for one in gone))
