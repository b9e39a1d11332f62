"""The hot store as a long-lived server has it: filled where it is empty, opened again where it was replaced.

While it is filled for the first time requests are answered 503. One that was deleted under a running server is made
anew; until it is whole, nothing is answered from it.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from quantlytic_assets.api.problems import Problem
from quantlytic_assets.services.rebuilding import publish_everything, unpublished
from quantlytic_assets.serving.hot_store import HotStore, HotStoreError
from quantlytic_assets.universe.loading import load_universe

if TYPE_CHECKING:
    from quantlytic_assets.resources import Resources

_LOG = logging.getLogger(__name__)
# How often it is looked whether the file is still the one that is open, in seconds.
_LOOKED_AT = 1.0
RETRY_AFTER = 5
# How long after it failed filling is tried again, in seconds.
_TRIED_AGAIN = 30.0


class WatchedStore:
    """The store and what it is doing. Methods are the event loop's; filling goes on in a thread of its own."""

    def __init__(self, resources: Resources):
        self._resources = resources
        self._hot: HotStore | None = None
        self._file: int | None = None
        self._looked = 0.0
        self._filling: threading.Thread | None = None
        self._again = 0.0
        self.mistake: str | None = None

    @property
    def state(self) -> str:
        """ready, filling, or failed."""
        try:
            self.ready()
        except Problem:
            return "failed" if self.mistake else "filling"
        return "ready"

    def ready(self) -> HotStore:
        """The store. Raises `Problem` 503 while it is being filled, or where it can't be."""
        now = time.monotonic()
        if now - self._looked > _LOOKED_AT:
            self._looked = now
            self._look()
        if self._hot is None:
            raise self._not_ready()
        return self._hot

    def _look(self) -> None:
        path = self._resources.settings.data / "hot" / "data.mdb"
        try:
            there = path.stat().st_ino
        except OSError:
            there = None
        if self._hot is not None and there == self._file:
            return
        if (self._filling is not None and self._filling.is_alive()) or time.monotonic() < self._again:
            return
        self._hot = None
        self._open(there)

    def _open(self, there: int | None) -> None:
        """Take the store that is in place if it is whole, else begin to fill one."""
        try:
            if there is not None:
                hot = self._resources.hot
                if self._file not in (None, there):
                    hot = self._reopened()
                if not unpublished(hot, load_universe(self._resources.settings.universe)):
                    self._hot, self._file, self.mistake = hot, there, None
                    return
            elif "hot" in self._resources.__dict__:
                self._reopened()
        except HotStoreError as error:
            self.mistake = str(error)
            return
        self._filling = threading.Thread(target=self._fill, name="publish", daemon=True)
        self._filling.start()

    def _reopened(self) -> HotStore:
        """The file that is in place now, instead of the one that was open."""
        self._resources.hot.close()
        del self._resources.__dict__["hot"]
        return self._resources.hot

    def _fill(self) -> None:
        try:
            universe = load_universe(self._resources.settings.universe)
            publish_everything(self._resources, universe, unpublished(self._resources.hot, universe))
            self.mistake = None
            self._file = (self._resources.hot.path / "data.mdb").stat().st_ino
            self._looked = 0.0
        except Exception as error:
            _LOG.exception("the hot store could not be filled")
            self.mistake = f"{type(error).__name__}: {error}"
            self._again = time.monotonic() + _TRIED_AGAIN

    def _not_ready(self) -> Problem:
        headers = {"retry-after": str(RETRY_AFTER)}
        if self.mistake:
            return Problem(
                503, f"The hot store can't be filled from the lake ({self.mistake}). Try: quantlytic publish", headers
            )
        return Problem(503, "The hot store is being filled from the lake; ask again in a few seconds.", headers)
