"""Keeping the lake small: old snapshots expire, small files are merged, files that nothing refers to are deleted.

Time travel goes back as far as snapshots are kept, and to each of them the rows are what they were: rows that DuckLake
keeps in its catalog (inserts of a few rows) are never flushed into files, because DuckLake 1.0 then shows older
snapshots with rows twice or with rows that were deleted. Nothing here is needed for the rows to be right.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from pathlib import PurePosixPath

import duckdb

from quantlytic_assets.storage.lake import Lake
from quantlytic_assets.storage.lake_catalog import METADATA

# Small files are merged into files of this size, which takes a few seconds each: writers wait that long. A file of half
# of it or more is not small.
_FILE_BYTES = 128 << 20
_MOST_MERGES = 50
_DELETED_SHARE = 0.5

# Per table: current files, how many of them are small, and how many have lost most of their rows.
_TABLES = f"""
    SELECT s.schema_name, t.table_name,
        count(*) FILTER (f.file_size_bytes < ?) AS small,
        count(*) FILTER (d.delete_count > {_DELETED_SHARE} * f.record_count) AS hollow
    FROM {METADATA}.ducklake_data_file f
    JOIN {METADATA}.ducklake_table t ON t.table_id = f.table_id AND t.end_snapshot IS NULL
    JOIN {METADATA}.ducklake_schema s ON s.schema_id = t.schema_id AND s.end_snapshot IS NULL
    LEFT JOIN {METADATA}.ducklake_delete_file d ON d.data_file_id = f.data_file_id AND d.end_snapshot IS NULL
    WHERE f.end_snapshot IS NULL
    GROUP BY ALL ORDER BY ALL
"""
_SIZE = f"""
    SELECT
        (SELECT count(*) FROM {METADATA}.ducklake_snapshot),
        count(*) FILTER (end_snapshot IS NULL),
        coalesce(sum(file_size_bytes) FILTER (end_snapshot IS NULL), 0)::BIGINT,
        count(*) FILTER (end_snapshot IS NOT NULL),
        coalesce(sum(file_size_bytes) FILTER (end_snapshot IS NOT NULL), 0)::BIGINT,
        (SELECT count(*) FROM {METADATA}.ducklake_files_scheduled_for_deletion)
    FROM {METADATA}.ducklake_data_file
"""
_NAMES = " UNION ALL ".join(
    f"SELECT path FROM {METADATA}.{table}"
    for table in ("ducklake_data_file", "ducklake_delete_file", "ducklake_files_scheduled_for_deletion")
)


@dataclass(frozen=True)
class LakeSize:
    """Snapshots, files with current rows, files kept for older snapshots only, and files that wait to be deleted."""

    snapshots: int
    files: int
    bytes: int
    old_files: int
    old_bytes: int
    waiting_files: int


@dataclass
class LakeMaintained:
    """What a maintenance did. `problems`: what was left undone and why, for the next one to try again."""

    expired_snapshots: int = 0
    merged_files: int = 0
    rewritten_files: int = 0
    deleted_files: int = 0
    orphaned_files: int = 0
    problems: list[str] = field(default_factory=list)


class RowsChanged(Exception):
    """Merging files would have changed a table's rows; it was rolled back."""


def lake_size(lake: Lake) -> LakeSize:
    """How much the lake holds."""
    return LakeSize(*lake.connect().execute(_SIZE).fetchall()[0])


def maintain_lake(
    lake: Lake,
    keep_snapshots: timedelta = timedelta(days=30),
    grace: timedelta = timedelta(days=1),
    small_files: int = 10,
    now: datetime | None = None,
) -> LakeMaintained:
    """Expire, merge, delete; each step holds the lake's commit lock for itself, so that writers get their turns.

    `keep_snapshots`: how far back time travel goes. `grace`: how long a file that is no longer needed stays for
    readers that still have it open, at most a day longer. `small_files`: so many small files of a table, and they are
    merged. Two maintenances at once take turns as writers do.
    """
    now = now or datetime.now(UTC)
    outcome = LakeMaintained()
    outcome.expired_snapshots = _expire(lake, now - keep_snapshots)
    small_bytes = _file_bytes(lake) // 2
    for schema, table, small, hollow in lake.connect().execute(_TABLES, [small_bytes]).fetchall():
        try:
            if small >= small_files:
                outcome.merged_files += _merge(lake, schema, table, small_bytes)
            if hollow:
                outcome.rewritten_files += _compact(
                    lake, "ducklake_rewrite_data_files", schema, table, f"delete_threshold => {_DELETED_SHARE}"
                )
        except (duckdb.Error, RowsChanged) as error:
            outcome.problems.append(f"{schema}.{table}: {error}")
    outcome.deleted_files = _delete_unused(lake, now - grace)
    outcome.orphaned_files = _delete_orphaned(lake, now - grace)
    return outcome


def _expire(lake: Lake, before: datetime) -> int:
    """Expire the snapshots that had been followed by another one at a time; the newest of all always stays."""
    # A connection that is being made takes the lock as well.
    connection = lake.connect()
    with lake.commit_lock:
        # By number: SQLite's catalog compares times as text, and mistakes those of one day.
        old = connection.execute(
            "SELECT list(snapshot_id) FROM lake.snapshots() WHERE snapshot_id < "
            "(SELECT max(snapshot_id) FROM lake.snapshots() WHERE snapshot_time <= ?)",
            [before],
        ).fetchall()[0][0]
        if not old:
            return 0
        numbers = ", ".join(map(str, old))
        connection.execute(f"CALL ducklake_expire_snapshots('lake', versions => [{numbers}])").fetchall()
        return len(old)


def _file_bytes(lake: Lake) -> int:
    """The size of the files that DuckLake makes: a moderate one, unless somebody has told it another."""
    connection = lake.connect()
    option = "SELECT value FROM ducklake_options('lake') WHERE option_name = 'target_file_size' AND scope = 'GLOBAL'"
    with lake.commit_lock:
        if not connection.execute(option).fetchall():
            connection.execute(f"CALL ducklake_set_option('lake', 'target_file_size', '{_FILE_BYTES}B')")
        return int(connection.execute(option).fetchall()[0][0])


def _merge(lake: Lake, schema: str, table: str, small_bytes: int) -> int:
    """Merge a table's small files, one new file at a time; how many there were of them."""
    merged = 0
    for _ in range(_MOST_MERGES):
        options = f"max_file_size => {small_bytes}, max_compacted_files => 1"
        taken = _compact(lake, "ducklake_merge_adjacent_files", schema, table, options)
        merged += taken
        if not taken:
            break
    return merged


def _compact(lake: Lake, function: str, schema: str, table: str, options: str) -> int:
    """Let DuckLake lay out a table's files anew; how many it took. Raises `RowsChanged` if other rows came of it."""
    with lake.transaction() as connection:
        before = _fingerprint(connection, schema, table)
        done = connection.execute(f"CALL {function}('lake', '{table}', schema => '{schema}', {options})").fetchall()
        taken = sum(files for _, _, files, _ in done)
        if taken and (after := _fingerprint(connection, schema, table)) != before:
            raise RowsChanged(f"{function} makes {after[0]} rows of {before[0]}, or others; rolled back")
        return taken


def _fingerprint(connection: duckdb.DuckDBPyConnection, schema: str, table: str) -> tuple[int, int | None]:
    """The number of rows and a sum over all their values, whatever their order."""
    return connection.execute(
        f'SELECT count(*), sum(hash(one)::HUGEINT) FROM lake."{schema}"."{table}" one'
    ).fetchall()[0]


def _delete_unused(lake: Lake, before: datetime) -> int:
    """Delete the files that no snapshot has needed since some time before `before`."""
    # SQLite's catalog compares these times as text, in which the whole last day comes before its first moment.
    last = datetime.combine(before.astimezone(UTC).date(), time(), UTC) - timedelta(microseconds=1)
    call = "CALL ducklake_cleanup_old_files('lake', older_than => ?::TIMESTAMPTZ)"
    connection = lake.connect()
    with lake.commit_lock:
        return len(connection.execute(call, [last]).fetchall())


def _delete_orphaned(lake: Lake, before: datetime) -> int:
    """Delete files that killed or failed writers left behind and the catalog never knew.

    Raises `RuntimeError` where DuckLake takes a file for one of those although the catalog knows it.
    """
    connection = lake.connect()
    with lake.commit_lock:
        call = "CALL ducklake_delete_orphaned_files('lake', older_than => ?::TIMESTAMPTZ, dry_run => {})"
        found = {_name(path) for (path,) in connection.execute(call.format("true"), [before]).fetchall()}
        if not found:
            return 0
        known = {_name(path) for (path,) in connection.execute(_NAMES).fetchall()}
        if found & known:
            raise RuntimeError(f"DuckLake takes files in use for orphaned ones, {sorted(found & known)[0]} among them")
        return len(connection.execute(call.format("false"), [before]).fetchall())


def _name(path: str) -> str:
    """A file's own name, which DuckLake gives to one file only."""
    return PurePosixPath(path).name
