"""Maintenance of a lake by other processes."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from multiprocessing.synchronize import Barrier

from quantlytic_assets.storage.maintenance import maintain_lake
from quantlytic_tests.storage.places import Place
from quantlytic_tests.storage.processes import replace_session

DAY = date(2025, 3, 3)


def maintain_at_once(barrier: Barrier, place: Place, name: str, rounds: int) -> None:
    """Write one's own sessions, or do maintenance, when the others do."""
    lake = place.resources.lake
    lake.connect()
    for i in range(rounds):
        barrier.wait(60)
        if name.startswith("writer"):
            replace_session(lake, i, name, DAY + timedelta(days=i), 40)
        else:
            done = maintain_lake(lake, timedelta(days=400), small_files=2, now=datetime.now(UTC) + timedelta(days=2))
            assert done.problems == []


def maintain_forever(place: Place) -> None:
    """Do maintenance again and again until killed, with nothing kept for anybody."""
    lake = place.resources.lake
    while True:
        maintain_lake(lake, timedelta(0), small_files=2, now=datetime.now(UTC) + timedelta(days=2))
