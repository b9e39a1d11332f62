"""The installation that the end-to-end tests share: built once for a test run, however many workers it has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from filelock import FileLock

from quantlytic_tests.end_to_end.installations import Installed
from quantlytic_tests.end_to_end.scenarios import BASE, built


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """`scenarios.built`; tests only read it."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        # Each worker has a directory of its own below the one of the run.
        root = root.parent
    return _once(root / "base_installation")


def _once(root: Path) -> Installed:
    with FileLock(root.with_suffix(".lock")):
        done = root / "built"
        if done.exists():
            return Installed(root, BASE)
        installed = built(root)
        done.touch()
        return installed
