"""When orders are not sent, because TWS or Gateway is about to restart: what is sent in that minute can vanish.

Gateway restarts once a day at a time of its own settings (23:45 by default); on Sundays at 01:00 in New York a session
ends for good and a person has to log in anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

_NEW_YORK = ZoneInfo("America/New_York")
_WEEKLY, _SUNDAY = time(1), 6
_BEFORE, _AFTER = timedelta(minutes=5), timedelta(minutes=10)


@dataclass(frozen=True)
class Restarts:
    """The daily restart by the clock of a time zone."""

    daily: time = time(23, 45)
    zone: str = "America/New_York"

    def near(self, now: datetime) -> bool:
        """Whether a restart is due within five minutes or was within the last ten."""
        local, eastern = now.astimezone(ZoneInfo(self.zone)), now.astimezone(_NEW_YORK)
        weekly = eastern.weekday() == _SUNDAY and _around(eastern, _WEEKLY)
        # Shortly after midnight the restart was yesterday's.
        return weekly or _around(local, self.daily) or _around(local - timedelta(days=1), self.daily, next_day=True)


def _around(now: datetime, at: time, next_day: bool = False) -> bool:
    due = now.replace(hour=at.hour, minute=at.minute, second=0, microsecond=0)
    moment = now + timedelta(days=1) if next_day else now
    return due - _BEFORE <= moment < due + _AFTER
