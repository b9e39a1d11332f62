"""Records of the live path on their way: each of them on the bus once, whatever the bus answers."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from quantlytic_assets.live.sending import Sender, Stopped
from quantlytic_assets.live.state import Message
from quantlytic_assets.storage.bus import BusUnavailable, LocalBus, Sending

TOPICS = ("signals.a", "bars.1m.d")


class Failing(LocalBus):
    """A bus in a directory that fails when it is told to: it takes some records, and says that it is away."""

    def __init__(self, root: Path):
        super().__init__(root)
        # How many records of the next calls are taken before one fails; empty: none fails.
        self.failures: list[int] = []
        self.asked = 0
        # Whether it is known at once what became of what was sent.
        self.known = False

    def _fail(self, topic, values, keys, headers) -> None:
        self.asked += 1
        if self.failures:
            taken = self.failures.pop(0)
            super().publish(topic, values[:taken], keys[:taken], headers)
            raise BusUnavailable("away")

    def publish(self, topic, values, keys, headers):
        self._fail(topic, values, keys, headers)
        super().publish(topic, values, keys, headers)

    def send(self, topic, values, keys, headers):
        if self.failures and self.failures[0] < 0:
            self.failures.pop(0)
            raise BusUnavailable("away at once")

        def wait() -> None:
            self.publish(topic, values, keys, headers)

        return Sending(wait, lambda: self.known)


def messages(first: int, last: int) -> list[Message]:
    return [
        Message(topic, "K", f"{topic}/{number}", orjson.dumps({"id": f"{topic}/{number}"}))
        for topic in TOPICS
        for number in range(first, last)
    ]


def there(bus: LocalBus, topic: str) -> list[str]:
    end = bus.watermarks(topic).get(0, (0, 0))[1]
    return [orjson.loads(value)["id"] for value in bus.read(topic, 0, 0, end).values] if end else []


@pytest.mark.parametrize(
    "failures", [[], [0], [3], [3, 2], [-1], [10], [2, 0, 4, 1]], ids=lambda one: "-".join(map(str, one)) or "none"
)
def test_each_record_is_there_once_whatever_part_the_bus_took(tmp_path, monkeypatch, failures):
    monkeypatch.setattr("quantlytic_assets.live.sending.pause", lambda failures: 0.0)
    bus, told, arrived = Failing(tmp_path), [], []
    sender = Sender(bus, told.append, arrived.append)
    sender.send(messages(0, 5), 1.0)
    sender.settle()
    bus.failures = list(failures)
    sender.send(messages(5, 15), 2.0)
    assert sender.busy
    sender.settle()
    assert not sender.busy and arrived == [1.0, 2.0]
    for topic in TOPICS:
        assert there(bus, topic) == [f"{topic}/{number}" for number in range(15)]
    assert ("the bus answers again" in told) == bool(failures)


def test_a_transaction_is_sent_while_the_last_is_under_way_and_one_before_it_is_not(tmp_path):
    bus, arrived = Failing(tmp_path), []
    sender = Sender(bus, lambda line: None, arrived.append)
    for number in range(4):
        sender.settle(1)
        assert arrived == [float(one) for one in range(number - 1)]
        assert [one.id for one in sender.open] == [one.id for one in messages(number - 1, number) if number]
        sender.send(messages(number, number + 1), float(number))
    sender.send([], 9.0)
    sender.look()
    assert len(arrived) == 2
    bus.known = True
    sender.look()
    assert arrived == [0.0, 1.0, 2.0, 3.0] and sender.open == []
    for topic in TOPICS:
        assert there(bus, topic) == [f"{topic}/{number}" for number in range(4)]


@pytest.mark.parametrize("failures", [[0], [2], [2, 3, 1], [-1, 2], [1, 1, 1, 1, 0]], ids=lambda one: str(one))
def test_of_two_transactions_under_way_each_record_is_there_once_whatever_the_bus_took(tmp_path, monkeypatch, failures):
    monkeypatch.setattr("quantlytic_assets.live.sending.pause", lambda failures: 0.0)
    bus, arrived = Failing(tmp_path), []
    sender = Sender(bus, lambda line: None, arrived.append)
    sender.send(messages(0, 5), 0.0)
    bus.failures = list(failures)
    sender.send(messages(5, 10), 1.0)
    sender.settle(1)
    sender.send(messages(10, 15), 2.0)
    sender.settle()
    assert arrived == [0.0, 1.0, 2.0] and not sender.busy
    for topic in TOPICS:
        assert sorted(there(bus, topic)) == sorted(f"{topic}/{number}" for number in range(15))


def test_a_process_that_is_to_end_does_not_wait_for_a_bus_that_is_away(tmp_path):
    bus = Failing(tmp_path)
    sender = Sender(bus, lambda line: None, lambda received: None)
    sender.stopping = lambda: True
    bus.failures = [4] * 100
    sender.send(messages(0, 10), 0.0)
    with pytest.raises(Stopped):
        sender.settle()
    asked = bus.asked
    # Nothing is waited for twice: the bus may take it twice then.
    with pytest.raises(Stopped):
        sender.settle()
    assert bus.asked == asked and sender.busy
    # The next process has them from the store, and publishes what is missing.
    bus.failures = []
    Sender(bus, lambda line: None, lambda received: None).publish_missing(messages(0, 10))
    for topic in TOPICS:
        assert sorted(there(bus, topic)) == sorted(f"{topic}/{number}" for number in range(10))
