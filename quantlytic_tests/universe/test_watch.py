"""A universe file that changes under a process which goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from quantlytic_assets.universe.models import UniverseError
from quantlytic_assets.universe.watch import WatchedUniverse
from quantlytic_tests.end_to_end.universes import CRYPTO_1M, EQUITIES_5M, universe


def write(path: Path, **datasets: dict) -> Path:
    path.write_text(yaml.safe_dump(universe(**datasets), sort_keys=False))
    return path


def test_a_change_is_seen_once_and_read(tmp_path: Path):
    path = write(tmp_path / "universe.yaml", crypto_1m=CRYPTO_1M)
    watched = WatchedUniverse(path)
    assert not watched.changed()
    write(path, crypto_1m=CRYPTO_1M, equities_5m=EQUITIES_5M)
    assert watched.changed()
    assert not watched.changed()
    assert list(watched.now().datasets) == ["crypto_1m", "equities_5m"]


def test_a_file_with_mistakes_leaves_what_was_right_and_is_told(tmp_path: Path):
    path = write(tmp_path / "universe.yaml", crypto_1m=CRYPTO_1M)
    watched = WatchedUniverse(path)
    write(path, crypto_1m={**CRYPTO_1M, "interval": "7m"})
    assert list(watched.now().datasets) == ["crypto_1m"] and watched.now().datasets["crypto_1m"].interval == "1m"
    assert any("interval" in mistake for mistake in watched.mistakes)
    path.unlink()
    assert list(watched.now().datasets) == ["crypto_1m"] and watched.mistakes
    write(path, equities_5m=EQUITIES_5M)
    assert list(watched.now().datasets) == ["equities_5m"]
    assert watched.mistakes == []


def test_one_that_was_never_right_is_an_error(tmp_path: Path):
    with pytest.raises(UniverseError):
        WatchedUniverse(write(tmp_path / "universe.yaml", crypto_1m={**CRYPTO_1M, "interval": "7m"}))
