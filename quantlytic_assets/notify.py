"""Messages to people: webhook, e-mail, Slack, Telegram and whatever else Apprise knows, by addresses of the settings.

What is worth a message, and when it is sent again, is decided in `automation.alert_plan`. An address holds its own
credentials: it is never shown, only its kind and its place in the list.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# Addresses may hold commas themselves: only what begins another one divides.
_BETWEEN = re.compile(r"[,\s]+(?=[A-Za-z][A-Za-z0-9+.-]*://)")


@dataclass(frozen=True)
class Undelivered:
    """An address that did not take a message: its number in the list, from 1 on, and its kind, such as mailto."""

    number: int
    kind: str

    def __str__(self) -> str:
        return f"address {self.number} of QUANTLYTIC_NOTIFY ({self.kind}://…)"


def addresses(setting: str) -> list[str]:
    """The addresses of the setting, in their order."""
    return [one for one in (part.strip(", \t\r\n") for part in _BETWEEN.split(setting)) if one]


class Notifier:
    """Sends to Apprise addresses (https://appriseit.com/services), each by itself."""

    def __init__(self, urls: Sequence[str]):
        self._urls = list(urls)

    def __len__(self) -> int:
        return len(self._urls)

    def unusable(self) -> list[Undelivered]:
        """Addresses that Apprise can't read. Asks nobody."""
        return [self._named(number) for number in self._numbers() if self._service(number) is None]

    def send(self, title: str, body: str, only: Iterable[int] | None = None) -> list[Undelivered]:
        """Send a message to all addresses, or to the numbers `only` (from 1 on); returns those that did not take it.

        Never raises: what goes wrong between here and a server is a message that was not delivered.
        """
        wanted = self._numbers() if only is None else [number for number in only if number in self._numbers()]
        failed = []
        for number in wanted:
            service = self._service(number)
            try:
                taken = service is not None and bool(service.notify(title=title, body=body))
            except Exception:
                taken = False
            if not taken:
                failed.append(self._named(number))
        return failed

    def _numbers(self) -> range:
        return range(1, len(self._urls) + 1)

    def _named(self, number: int) -> Undelivered:
        return Undelivered(number, self._urls[number - 1].partition("://")[0][:20])

    def _service(self, number: int):
        import logging

        import apprise

        # It logs addresses at lower levels, and what we say of a failure is said by us.
        logging.getLogger("apprise").setLevel(logging.CRITICAL)
        return apprise.Apprise.instantiate(self._urls[number - 1], suppress_exceptions=True)
