"""Kernels that were compiled ahead are not compiled again by who computes the core features, family by family."""

import os
import subprocess
import sys
from pathlib import Path

PREPARE = "from quantlytic_assets.features.batch import prepare; prepare()"
COMPUTE = """
from quantlytic_assets.features.batch import compute
from quantlytic_assets.features.columns import of_family
from quantlytic_assets.schemas.features import FAMILIES
from quantlytic_tests.features.walks import REGISTRY, walk

bars = walk(400, 1)
for family in FAMILIES:
    compute(bars, of_family(REGISTRY.features(["core"]), family))
"""


def compiled(code: str, cache: Path) -> set[str]:
    """The machine code that there is after a process has run this."""
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"NUMBA_CACHE_DIR": str(cache)}, check=True)
    return {path.name for path in cache.rglob("*.nbc")}


def test_core_features_find_their_kernels_compiled(tmp_path):
    prepared = compiled(PREPARE, tmp_path)
    assert prepared and compiled(COMPUTE, tmp_path) == prepared
