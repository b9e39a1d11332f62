"""DuckDB's extensions from the installed packages, so that nothing is downloaded where the packages are."""

from __future__ import annotations

import importlib.util
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

import duckdb


def extension_directory(directory: Path, names: Sequence[str]) -> Path:
    """A directory laid out as DuckDB wants it, with those of the extensions that the installed packages carry.

    Done once; where a package is missing DuckDB downloads that extension by itself.
    """
    with duckdb.connect() as connection:
        ((version, platform),) = connection.execute(
            "SELECT library_version, (SELECT platform FROM pragma_platform()) FROM pragma_version()"
        ).fetchall()
    target = directory / version / platform
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        spec = importlib.util.find_spec(f"duckdb_extension_{name}")
        wanted = target / f"{name}.duckdb_extension"
        if spec is None or spec.submodule_search_locations is None or wanted.exists():
            continue
        shipped = Path(spec.submodule_search_locations[0]) / "extensions" / version
        partial = wanted.with_suffix(f".{threading.get_native_id()}.tmp")
        shutil.copyfile(next(shipped.rglob(f"{name}.duckdb_extension")), partial)
        partial.rename(wanted)
    return directory
