"""The installation of an older version that is shipped with the tests (see `data/upgrade/README.md`)."""

from __future__ import annotations

import tarfile
from pathlib import Path

import yaml

from quantlytic_tests.end_to_end.installations import Installed

_ARCHIVE = Path(__file__).parent / "data" / "upgrade" / "installation.tar.xz"


def unpacked(root: Path) -> Installed:
    """Unpack it at another place than it was made at, with the layout of its version."""
    with tarfile.open(_ARCHIVE) as archive:
        archive.extractall(root, filter="data")
    return Installed(root, yaml.safe_load((root / "universe.yaml").read_text()))
