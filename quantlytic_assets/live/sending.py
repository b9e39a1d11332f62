"""The records of the last transaction on their way to the bus, while the next batch is worked on.

Their place in the store is taken by those of the next transaction, so that one waits until the bus has them all. Where
it is not known which of them the bus has, its newest records are looked at, and the others are published.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import orjson

from quantlytic_assets.live.publishing import HEADERS
from quantlytic_assets.live.state import Message
from quantlytic_assets.storage.bus import Bus, BusUnavailable

_LONGEST_RETRY = 5.0


class Stopped(Exception):
    """The process is to end, and the bus does not answer."""


class Sender:
    """What one process publishes, a transaction at a time. Only this process writes to the topics.

    report: is told what a person should know. arrived: is called when the bus has what was sent. stopping: whether the
    process is to end.
    """

    def __init__(self, bus: Bus, report: Callable[[str], None], arrived: Callable[[], None]):
        self._bus = bus
        self._report = report
        self._arrived = arrived
        self.stopping: Callable[[], bool] = lambda: False
        # What the bus may lack, and what waits until it has it.
        self._open: list[Message] = []
        self._waits: list[Callable[[], None]] = []

    @property
    def busy(self) -> bool:
        """Whether it is not known yet that the bus has all that was sent."""
        return bool(self._open)

    def send(self, messages: Sequence[Message]) -> None:
        """Send what was committed on its way. What was sent before has been settled."""
        self._open = list(messages)
        for topic, own in _by_topic(messages).items():
            try:
                values, keys = [one.value for one in own], [one.key for one in own]
                self._waits.append(self._bus.send(topic, values, keys, HEADERS))
            except BusUnavailable as error:
                self._waits.append(_raising(error))

    def settle(self) -> None:
        """Wait until the bus has all that was sent.

        Raises `Stopped` where the bus does not answer and the process is to end: the outbox in the store has it.
        """
        failures = 0
        while self._open:
            try:
                if failures:
                    self.publish_missing(self._open)
                else:
                    self._wait()
                self._open = []
                self._arrived()
            except BusUnavailable as error:
                failures += 1
                if failures == 1:
                    self._report(f"the bus does not answer, trying again: {error}")
                if self.stopping():
                    raise Stopped from error
                time.sleep(pause(failures))
        if failures:
            self._report("the bus answers again")

    def _wait(self) -> None:
        """Wait for everything that is under way, also where the bus did not take a part of it."""
        waits, self._waits = self._waits, []
        failed = None
        for wait in waits:
            try:
                wait()
            except BusUnavailable as error:
                failed = error
        if failed is not None:
            raise failed

    def publish_missing(self, messages: Sequence[Message]) -> None:
        """Publish those of the last transaction that the bus does not have."""
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


def _raising(error: BusUnavailable) -> Callable[[], None]:
    def wait() -> None:
        raise error

    return wait


def _by_topic(messages: Sequence[Message]) -> dict[str, list[Message]]:
    found: dict[str, list[Message]] = {}
    for one in messages:
        found.setdefault(one.topic, []).append(one)
    return found
