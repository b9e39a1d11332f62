"""The records of batches on their way to the bus, while the next batch is worked on.

Some sendings may be under way at a time: until the bus has all of a batch, the store has it. Where it is not known what
the bus has, its newest records are looked at, and the others are published; those of the last sending may stand before
them then.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

import orjson

from quantlytic_assets.live.publishing import HEADERS
from quantlytic_assets.live.state import Message
from quantlytic_assets.storage.bus import Bus, BusUnavailable, Sending

_LONGEST_RETRY = 5.0


class Stopped(Exception):
    """The process is to end, and the bus does not answer."""


class Sender:
    """What one process publishes. Only this process writes to the topics.

    report: is told what a person should know. arrived: is called when the bus has what was sent, with what `send` was
    given. stopping: whether the process is to end. published: the bus has all of the batches before this number.
    """

    def __init__(self, bus: Bus, report: Callable[[str], None], arrived: Callable[[float], None]):
        self._bus = bus
        self._report = report
        self._arrived = arrived
        self.stopping: Callable[[], bool] = lambda: False
        self.published = 0
        # What the bus may lack, by sending, oldest first.
        self._open: deque[_Sent] = deque()

    @property
    def busy(self) -> bool:
        """Whether it is not known yet that the bus has all that was sent."""
        return bool(self._open)

    @property
    def open(self) -> list[Message]:
        """What the bus may lack."""
        return [message for sent in self._open for message in sent.messages]

    def send(self, messages: Sequence[Message], received: float, before: int = 0) -> None:
        """Send what was committed on its way. received: when what it follows from came.

        before: with it, all of the batches before this number were sent.
        """
        parts: list[Sending] = []
        for topic, own in _by_topic(messages).items():
            try:
                values, keys = [one.value for one in own], [one.key for one in own]
                parts.append(self._bus.send(topic, values, keys, HEADERS))
            except BusUnavailable as error:
                parts.append(Sending(_raising(error)))
        self._open.append(_Sent(messages, parts, received, before))

    def look(self) -> None:
        """Take note of what the bus has by now, without waiting. Raises as `settle` does."""
        while self._open and all(one.done() for one in self._open[0].parts):
            self.settle(len(self._open) - 1)

    def settle(self, most: int = 0) -> None:
        """Wait until the bus has all that was sent, but for the last `most` sendings.

        Raises `Stopped` where the bus does not answer and the process is to end: the store has it.
        """
        failures = 0
        while len(self._open) > most:
            try:
                if failures:
                    self.publish_missing(self.open)
                    arrived = len(self._open)
                else:
                    _wait(self._open[0].parts)
                    arrived = 1
                for _ in range(arrived):
                    sent = self._open.popleft()
                    self.published = max(self.published, sent.before)
                    if sent.messages:
                        self._arrived(sent.received)
            except BusUnavailable as error:
                failures += 1
                if failures == 1:
                    self._report(f"the bus does not answer, trying again: {error}")
                    # What is under way comes to its end before it is looked what is missing.
                    with suppress(BusUnavailable):
                        _wait([one for sent in list(self._open)[1:] for one in sent.parts])
                    # Each was waited for, which is done once: from now on it is looked what is missing.
                    failed = Sending(_raising(error))
                    self._open = deque(one._replace(parts=(failed,)) for one in self._open)
                if self.stopping():
                    raise Stopped from error
                time.sleep(pause(failures))
        if failures:
            self._report("the bus answers again")

    def publish_missing(self, messages: Sequence[Message]) -> None:
        """Publish those of the last records that the bus does not have."""
        missing: dict[str, list[Message]] = {}
        for topic, own in _by_topic(messages).items():
            there = self._newest_ids(topic, len(own))
            missing[topic] = [one for one in own if one.id not in there]
        for topic, own in missing.items():
            self._bus.publish(topic, [one.value for one in own], [one.key for one in own], HEADERS)
        self._report(f"of the last {len(messages)} records the bus lacked {sum(map(len, missing.values()))}")

    def _newest_ids(self, topic: str, count: int) -> set[str]:
        """The ids of the newest records of each partition of a topic."""
        found: set[str] = set()
        for partition, (first, end) in self._bus.watermarks(topic).items():
            records = self._bus.read(topic, partition, max(first, end - count), end)
            found |= {orjson.loads(value)["id"] for value in records.values}
        return found


def pause(failures: int) -> float:
    """Seconds before a bus that has failed so many times is asked again."""
    return min(0.1 * 2**failures, _LONGEST_RETRY)


class _Sent(NamedTuple):
    """Records, their way to each topic, when what they follow from came, and with it which batches were sent."""

    messages: Sequence[Message]
    parts: Sequence[Sending]
    received: float
    before: int


def _wait(parts: Sequence[Sending]) -> None:
    """Wait for everything that is under way, also where the bus did not take a part of it."""
    failed = None
    for one in parts:
        try:
            one.wait()
        except BusUnavailable as error:
            failed = error
    if failed is not None:
        raise failed


def _raising(error: BusUnavailable) -> Callable[[], None]:
    def wait() -> None:
        raise error

    return wait


def _by_topic(messages: Sequence[Message]) -> dict[str, list[Message]]:
    found: dict[str, list[Message]] = {}
    for one in messages:
        found.setdefault(one.topic, []).append(one)
    return found
