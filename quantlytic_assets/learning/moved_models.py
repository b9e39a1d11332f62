"""Models that were moved with their installation: MLflow names every artifact by its absolute place."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlparse

# Where MLflow's database keeps places; part of its layout, which a test holds it to.
PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def follow(database: Path, root: str) -> None:
    """Have a SQLite database name the artifacts below `root` (a `file://` URI without a slash at its end).

    Each experiment's artifacts are in a directory of its name below one root. Where the database knows another root and
    they are below this one, the installation was moved or copied, and every place follows in one transaction.
    """
    here = Path(unquote(urlparse(root).path))
    with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        experiments = connection.execute("SELECT name, artifact_location FROM experiments").fetchall()
        moved = {
            location.removesuffix(f"/{name}")
            for name, location in experiments
            if location.startswith("file://") and location.endswith(f"/{name}") and (here / name).is_dir()
        } - {root}
        for old in moved:
            for table, column in PLACES:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                    (root, len(old) + 1, len(old) + 1, f"{old}/"),
                )
