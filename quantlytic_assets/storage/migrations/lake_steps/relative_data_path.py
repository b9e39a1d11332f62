"""The catalog stores where the data lies as a path beside the catalog, not from the root of the file system.

DuckLake stored the absolute path of the data directory and refused to attach the lake once the directory had moved. A
copy that another client attached without `DATA_PATH` read and wrote the files of the original. Paths below it were
relative before. Quantlytic itself always says where the data is (`OVERRIDE_DATA_PATH`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

    from quantlytic_assets.storage.lake import LakePlace


# DuckDB changes one database in a transaction, and this is the catalog's own, not the lake.
IN_TRANSACTION = False


def apply(connection: duckdb.DuckDBPyConnection, place: LakePlace) -> None:
    """Store `place.stored_data_path`."""
    connection.execute(
        "UPDATE __ducklake_metadata_lake.ducklake_metadata SET value = ? WHERE key = 'data_path' AND scope IS NULL",
        [place.stored_data_path],
    )
