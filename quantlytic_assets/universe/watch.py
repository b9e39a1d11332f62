"""The universe file as it is now, for processes that outlive a change of it: what was last right stays in use."""

from __future__ import annotations

import threading
from pathlib import Path

from quantlytic_assets.universe.loading import load_universe
from quantlytic_assets.universe.models import Universe, UniverseError


def mark_of(path: Path) -> tuple[int, int] | None:
    """Modification time in ns and size of a file, by which a change of it is seen; None where there is no file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


class WatchedUniverse:
    """The universe of a file, read again whenever the file has changed. Safe for threads."""

    def __init__(self, path: Path):
        self.path = path
        self.mistakes: list[str] = []
        self._turn = threading.Lock()
        self._mark = mark_of(path)
        self._universe = load_universe(path)

    def now(self) -> Universe:
        """The universe as the file says, or as it said last without mistakes; `mistakes` are those of the file now."""
        self.changed()
        return self._universe

    def changed(self) -> bool:
        """Whether the file is another one than when this was last called; it is read again then."""
        with self._turn:
            mark = mark_of(self.path)
            if mark == self._mark:
                return False
            self._mark = mark
            try:
                self._universe = load_universe(self.path)
                self.mistakes = []
            except UniverseError as error:
                self.mistakes = str(error).splitlines()
            return True
