"""Where DuckDB's extensions come from, and what they cost a process."""

import importlib.util
import subprocess
import sys

from quantlytic_assets.storage import extensions
from quantlytic_assets.storage.extensions import extension_directory, extension_settings

NAMES = ("ducklake", "sqlite_scanner")

# Counts the places in memory where an extension's file begins, after three lakes were opened one after another.
MAPPINGS = """
import sys
from pathlib import Path
from quantlytic_assets.resources import make_resources
from quantlytic_assets.settings import Settings

for i in range(3):
    make_resources(Settings(home=Path(sys.argv[1]) / str(i))).lake.query("SELECT 1")
rows = [line.split() for line in open("/proc/self/maps")]
print(len({row[-1] for row in rows if row[-1].endswith("ducklake.duckdb_extension") and row[2] == "00000000"}))
"""


def test_lakes_of_one_process_load_each_extension_once(tmp_path):
    done = subprocess.run([sys.executable, "-c", MAPPINGS, str(tmp_path)], capture_output=True, text=True)
    assert done.stdout.strip() == "1", done.stderr


def test_a_directory_follows_a_package_that_has_moved(tmp_path):
    directory = extension_directory(tmp_path, NAMES)
    (path,) = directory.rglob("ducklake.duckdb_extension")
    wanted = path.read_bytes()
    path.unlink()
    path.symlink_to(tmp_path / "where the package was")
    assert path.parent == next(extension_directory(tmp_path, NAMES).rglob("ducklake.duckdb_extension")).parent
    assert path.read_bytes() == wanted


def test_signatures_are_checked_where_duckdb_has_to_download_an_extension(tmp_path, monkeypatch):
    assert extension_settings(tmp_path, NAMES)["allow_unsigned_extensions"] == "true"
    real = importlib.util.find_spec
    monkeypatch.setattr(
        extensions.importlib.util, "find_spec", lambda name: None if name.endswith("ducklake") else real(name)
    )
    assert extension_settings(tmp_path, NAMES)["allow_unsigned_extensions"] == "false"
