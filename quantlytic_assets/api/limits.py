"""How often a caller may ask: a rate of its key, a quota a day, and few tries with wrong credentials.

Rates are counted in this process, what a key asked on a day in the state database too, a second late. A thread of its
own writes that, and the audit log, so that no request waits for a disk.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from quantlytic_assets.api.problems import Problem
from quantlytic_assets.storage.api_keys import Audited

if TYPE_CHECKING:
    from quantlytic_assets.api.access import Caller
    from quantlytic_assets.resources import Resources

_WRONG = "20/minute"
_WRITTEN_EVERY = 1.0
_LOG = logging.getLogger(__name__)


class Limits:
    """Counts requests; `close` writes what is not written yet."""

    def __init__(self, resources: Resources):
        self._resources = resources
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._usual = parse(resources.settings.api_rate) if resources.settings.api_rate else None
        self._wrong = parse(_WRONG)
        self._rates: dict[str, RateLimitItem] = {}
        self._used: Counter[tuple[str, date]] = Counter()
        self._today: dict[str, int] = {}
        self._day: date | None = None
        self._audited: list[Audited] = []
        self._turn = threading.Lock()
        self._end = threading.Event()
        self._writer: threading.Thread | None = None

    def check(self, caller: Caller) -> list[tuple[bytes, bytes]]:
        """Count a request; returns the headers that say what is left. Raises `Problem` 429 where nothing is."""
        if caller.key is None:
            return []
        key = caller.key
        self._count(key.id, key.daily_quota)
        rate = self._rate(key.rate)
        if rate is None:
            return []
        allowed = self._limiter.hit(rate, key.id)
        reset, remaining = self._limiter.get_window_stats(rate, key.id)
        wait = max(1, round(reset - time.time()))
        said = {
            "ratelimit-limit": str(rate.amount),
            "ratelimit-remaining": str(remaining),
            "ratelimit-reset": str(wait),
        }
        if not allowed:
            raise Problem(429, f"The key {key.id} may ask {rate}; wait {wait} s.", {**said, "retry-after": str(wait)})
        return [(name.encode(), value.encode()) for name, value in said.items()]

    def wrong(self, client: str) -> None:
        """Count a wrong credential of an address. Raises `Problem` 429 where there were too many."""
        if not self._limiter.hit(self._wrong, "wrong", client):
            reset, _ = self._limiter.get_window_stats(self._wrong, "wrong", client)
            wait = max(1, round(reset - time.time()))
            raise Problem(429, f"Too many wrong credentials; wait {wait} s.", {"retry-after": str(wait)})

    def audit(self, caller: str, client: str | None, method: str, path: str, status: int) -> None:
        """Have a request written to the audit log."""
        with self._turn:
            self._audited.append(Audited(datetime.now(UTC), caller, client, method, path, status))
        self._begin()

    def close(self) -> None:
        """Write what is not written yet."""
        self._end.set()
        if self._writer is not None:
            self._writer.join(timeout=10)
            self._writer = None

    def _rate(self, own: str | None) -> RateLimitItem | None:
        if own is None:
            return self._usual
        if own not in self._rates:
            self._rates[own] = parse(own)
        return self._rates[own]

    def _count(self, key: str, quota: int | None) -> None:
        day = datetime.now(UTC).date()
        if day != self._day:
            self._day, self._today = day, self._resources.api_keys.usage(day)
        asked = self._today.get(key, 0)
        if quota is not None and asked >= quota:
            midnight = datetime.combine(day, datetime.max.time(), UTC)
            wait = max(1, round((midnight - datetime.now(UTC)).total_seconds()))
            raise Problem(
                429,
                f"The key {key} may ask {quota:,} times a UTC day, and has.",
                {"retry-after": str(wait)},
                quota=quota,
            )
        self._today[key] = asked + 1
        with self._turn:
            self._used[key, day] += 1
        self._begin()

    def _begin(self) -> None:
        if self._writer is None and not self._end.is_set():
            self._writer = threading.Thread(target=self._write, name="api records", daemon=True)
            self._writer.start()

    def _write(self) -> None:
        while not self._end.wait(_WRITTEN_EVERY):
            self._write_once()
        self._write_once()

    def _write_once(self) -> None:
        with self._turn:
            used, audited = dict(self._used), self._audited
            self._used, self._audited = Counter(), []
        try:
            self._resources.api_keys.record(used, audited)
        except Exception as error:
            # Kept for the next time, but not without end.
            _LOG.error("what was asked of the API can't be recorded: %s", error)
            with self._turn:
                self._used.update(used)
                self._audited = (audited + self._audited)[-100_000:]
