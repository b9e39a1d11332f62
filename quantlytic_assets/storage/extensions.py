"""DuckDB's extensions from the installed packages, so that nothing is downloaded where the packages are."""

from __future__ import annotations

import importlib.util
import shutil
import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import duckdb


def extension_directory(directory: Path, names: Sequence[str]) -> Path:
    """A directory laid out as DuckDB wants it, with those of the extensions that the installed packages carry.

    Done once; where a package is missing DuckDB downloads that extension by itself.
    """
    version, platform = _build()
    target = directory / version / platform
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        spec = importlib.util.find_spec(f"duckdb_extension_{name}")
        wanted = target / f"{name}.duckdb_extension"
        if spec is None or spec.submodule_search_locations is None or wanted.exists():
            continue
        shipped = Path(spec.submodule_search_locations[0]) / "extensions" / version
        _put_in_place(next(shipped.rglob(f"{name}.duckdb_extension")), wanted)
    return directory


@lru_cache(maxsize=1)
def _build() -> tuple[str, str]:
    """DuckDB's version and platform, as its extension directories are named."""
    with duckdb.connect() as connection:
        ((version, platform),) = connection.execute(
            "SELECT library_version, (SELECT platform FROM pragma_platform()) FROM pragma_version()"
        ).fetchall()
    return version, platform


def extension_settings(directory: Path, names: Sequence[str]) -> dict[str, str]:
    """DuckDB's settings for these extensions, from `extension_directory`.

    Where packages carry all of them their signatures are not checked once more: hashing 50 MB took 0.3 s of each
    connection, and a package's file is as trusted as its Python code. What DuckDB downloads itself is checked.
    """
    shipped = all(importlib.util.find_spec(f"duckdb_extension_{name}") is not None for name in names)
    return {
        "extension_directory": str(extension_directory(directory, names)),
        "allow_unsigned_extensions": str(shipped).lower(),
    }


def _put_in_place(shipped: Path, wanted: Path) -> None:
    """Link `wanted` to a package's file, whole at once.

    Not a copy: a process that opens several lakes loads a linked extension once, and 25 MB for each copy of it.
    """
    partial = wanted.with_suffix(f".{threading.get_native_id()}.tmp")
    try:
        partial.symlink_to(shipped)
    except OSError:
        # A file system without links.
        shutil.copyfile(shipped, partial)
    partial.replace(wanted)
