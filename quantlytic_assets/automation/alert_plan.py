"""What people are notified, once, and once more when it is mended: pure, so that each turn can be tried by itself.

What is wrong at this moment is found in `alerts`; how a message is sent is in `notify`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

# Seconds before a message is sent again to who did not take it: doubled with each try, up to the second figure.
_FIRST_WAIT, _LONGEST_WAIT = 60.0, 3600.0
# More at one turn are put into one message.
_MOST_SINGLE = 5
# Messages that wait for an address that is away; the oldest are given up then, and that is said.
_MOST_WAITING = 200


@dataclass(frozen=True)
class Alert:
    """Something that is wrong. `key` tells it from others, also a turn later; `mended` is what is said when it is over.

    An alert without `mended` is an event: it is told and forgotten.
    """

    key: str
    title: str
    body: str
    mended: str | None = None


@dataclass(frozen=True)
class Message:
    """Something to be told to addresses (numbers from 1 on), how often that was tried, and when next (s since 1970)."""

    title: str
    body: str
    to: tuple[int, ...]
    tries: int = 0
    next_at: float = 0.0


@dataclass(frozen=True)
class Notified:
    """A sensor's memory of alerts.

    standing: alerts that stand, by key, with what to say when they are over. waiting: messages still to be taken.
    runs_until: until when failed runs have been looked at (seconds since 1970).
    """

    standing: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    waiting: Sequence[Message] = ()
    runs_until: float = 0.0

    def to_json(self) -> str:
        """The cursor."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, cursor: str | None) -> Notified:
        """A cursor read back."""
        if not cursor:
            return cls()
        content = json.loads(cursor)
        waiting = tuple(Message(**{**one, "to": tuple(one["to"])}) for one in content["waiting"])
        standing = {key: tuple(value) for key, value in content["standing"].items()}
        return cls(standing, waiting, content["runs_until"])


def take_in(notified: Notified, alerts: Iterable[Alert], count: int) -> Notified:
    """The memory with messages for what is new and what is over. `alerts`: what is wrong now; `count`: addresses."""
    everybody = tuple(range(1, count + 1))
    found = {alert.key: alert for alert in alerts}
    new = [alert for key, alert in found.items() if key not in notified.standing]
    over = {key: text for key, text in notified.standing.items() if key not in found}
    messages = [Message(alert.title, alert.body, everybody) for alert in new]
    messages += [Message(title, body, everybody) for title, body in over.values()]
    if len(messages) > _MOST_SINGLE:
        lines = "\n".join(f"{message.title}. {message.body}" for message in messages)
        messages = [Message(f"{len(messages)} alerts", lines, everybody)]
    standing = {key: text for key, text in notified.standing.items() if key in found}
    standing |= {alert.key: (f"{alert.title}: mended", alert.mended) for alert in new if alert.mended is not None}
    return replace(notified, standing=standing, waiting=(*notified.waiting, *messages))


def due(notified: Notified, now: float) -> list[Message]:
    """The messages to send at this turn."""
    return [message for message in notified.waiting if message.next_at <= now]


def delivered(notified: Notified, left: Mapping[int, tuple[int, ...]], now: float) -> tuple[Notified, list[Message]]:
    """The memory after a turn, and messages that are given up.

    `left`: by position among `due`, the addresses that did not take the message.
    """
    waiting, at = [], 0
    for message in notified.waiting:
        if message.next_at > now:
            waiting.append(message)
            continue
        to, at = left.get(at, ()), at + 1
        if to:
            wait = min(_LONGEST_WAIT, _FIRST_WAIT * 2.0 ** min(message.tries, 20))
            waiting.append(replace(message, to=to, tries=message.tries + 1, next_at=now + wait))
    given_up = waiting[: max(0, len(waiting) - _MOST_WAITING)]
    return replace(notified, waiting=tuple(waiting[len(given_up) :])), given_up
