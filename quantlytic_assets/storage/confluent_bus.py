"""The bus in Apache Kafka through librdkafka: what `kafka_bus` does, several times as fast in both directions.

The two drivers can be changed on the same topics at any time: they name a topic's identity alike, and put a key into
the same partition.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any, cast
from uuid import UUID

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic, TopicDescription

from quantlytic_assets.storage.bus import BusUnavailable, Records, Sending
from quantlytic_assets.storage.kafka_bus import KafkaPlace
from quantlytic_assets.storage.kafka_records import Header, append, append_values

# How long a call waits for a broker that is gone before it gives up. Runs are retried, sensors come again.
_PATIENCE_SECONDS = 30
# How long records may be under way before it is asked whether their topic is still there.
_DELIVERY_SECONDS = 5
# Messages that one call takes from librdkafka's queue. So few that they are gone again before Python's collector of
# cycles counts them as old: with many at once it walks through all objects of the process again and again, which takes
# more time than all else that is done for a record.
_AT_ONCE = 128
# kafka-python's names of the options of security, and librdkafka's.
_SECURITY = {
    "security_protocol": "security.protocol",
    "sasl_mechanism": "sasl.mechanism",
    "sasl_plain_username": "sasl.username",
    "sasl_plain_password": "sasl.password",
}
_GONE = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)


class ConfluentBus:
    """See `Bus`. One consumer, producer and admin client a process, each made on first use; threads take turns."""

    def __init__(self, place: KafkaPlace):
        self.place = place
        # While a broker is away it logs several lines a second; `BusUnavailable` says it once.
        self._log = logging.getLogger("quantlytic.librdkafka")
        self._log.setLevel(logging.CRITICAL + 1)
        self._turn = threading.RLock()
        self._seen: set[str] = set()
        # The identity of the topic that the consumer has read from, and where it stands there.
        self._reading: tuple[str, str | None, int, int] | None = None
        # The identity of each topic that the consumer has heard of.
        self._identities: dict[str, str] = {}
        self._tails: dict[str, tuple[Consumer, dict[int, int]]] = {}

    def _options(self) -> dict[str, Any]:
        security = {_SECURITY[name]: value for name, value in self.place.security.items() if value is not None}
        return {
            "bootstrap.servers": self.place.servers,
            "client.id": "quantlytic",
            "reconnect.backoff.max.ms": 1000,
            "topic.metadata.refresh.interval.ms": 30_000,
            "allow.auto.create.topics": False,
            **security,
        }

    @cached_property
    def _admin(self) -> AdminClient:
        options = {name: value for name, value in self._options().items() if name != "allow.auto.create.topics"}
        return AdminClient(options, logger=self._log)

    @cached_property
    def _consumer(self) -> Consumer:
        return self._new_consumer()

    def _new_consumer(self) -> Consumer:
        return Consumer(
            {
                **self._options(),
                # Wanted by the client; nothing is kept under it, for partitions are assigned and offsets given.
                "group.id": "quantlytic",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                # An offset that is gone is an error to be told, not a reason to read from somewhere else.
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 5,
                "fetch.message.max.bytes": 16 << 20,
                "fetch.max.bytes": 64 << 20,
                "queued.min.messages": 400_000,
                "queued.max.messages.kbytes": 128 << 10,
            },
            logger=self._log,
        )

    @cached_property
    def _producer(self) -> Producer:
        options = {name: value for name, value in self._options().items() if name != "allow.auto.create.topics"}
        return Producer(
            {
                **options,
                "acks": "all",
                "enable.idempotence": True,
                # kafka-python's: one key stays in one partition, whichever driver wrote it.
                "partitioner": "murmur2_random",
                "linger.ms": 0.5,
                "batch.size": 1 << 20,
                "message.max.bytes": 8 << 20,
                "queue.buffering.max.messages": 2_000_000,
                "queue.buffering.max.kbytes": 1 << 20,
                "message.timeout.ms": 2 * _PATIENCE_SECONDS * 1000,
            },
            logger=self._log,
        )

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except KafkaException as error:
            raise BusUnavailable(f"Kafka at {self.place.servers}: {error.args[0]}") from error

    def close(self) -> None:
        """Let go of all connections; the next call makes new ones."""
        with self._turn:
            for consumer in (self.__dict__.pop("_consumer", None), *(one for one, _ in self._tails.values())):
                if consumer is not None:
                    consumer.close()
            self._tails.clear()
            self._reading = None
            self._identities = {}
            producer = self.__dict__.pop("_producer", None)
            if producer is not None:
                producer.flush(_DELIVERY_SECONDS)
            self.__dict__.pop("_admin", None)

    def _description(self, topic: str) -> TopicDescription | None:
        """What the cluster knows of a topic; None where it has none."""
        name = self.place.name(topic)
        asked = self._admin.describe_topics(TopicCollection([name]), request_timeout=_PATIENCE_SECONDS)
        try:
            found = asked[name].result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
            self._seen.discard(topic)
            return None
        self._seen.add(topic)
        return found

    def create(self, topic: str) -> None:
        """See `Bus.create`."""
        with self._turn, self._asking():
            if self._description(topic) is not None:
                return
            told = self.place.declaration(topic)
            new = NewTopic(
                self.place.name(topic),
                num_partitions=told["num_partitions"],
                replication_factor=told["replication_factor"],
                config=told["configs"],
            )
            try:
                self._admin.create_topics([new], operation_timeout=_PATIENCE_SECONDS)[new.topic].result()
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise
            deadline = time.monotonic() + _PATIENCE_SECONDS
            while self._description(topic) is None:
                if time.monotonic() > deadline:
                    raise BusUnavailable(f"Kafka at {self.place.servers} does not make topic {topic}")
                time.sleep(0.05)

    def prepare(self, topic: str) -> None:
        """See `Bus.prepare`: without it a new client sends its first record a second late."""
        self.create(topic)
        with self._asking():
            self._producer.list_topics(self.place.name(topic), timeout=_PATIENCE_SECONDS)

    def identity(self, topic: str) -> str | None:
        """See `Bus.identity`: Kafka's own topic id."""
        with self._turn, self._asking():
            found = self._description(topic)
        return None if found is None else _identity(found)

    def publish(
        self, topic: str, values: Sequence[bytes], keys: Sequence[str | None], headers: Mapping[str, str]
    ) -> None:
        """See `Bus.publish`. When it raises, some of the records may have been appended and others not."""
        self.send(topic, values, keys, headers).wait()

    def send(
        self, topic: str, values: Sequence[bytes], keys: Sequence[str | None], headers: Mapping[str, str]
    ) -> Sending:
        """See `Bus.send`."""
        if len(values) != len(keys):
            raise ValueError(f"{len(values)} values with {len(keys)} keys")
        if not values:
            return Sending(lambda: None)
        if topic not in self._seen:
            self.create(topic)
        name = self.place.name(topic)
        head: list[tuple[str, str | bytes | None]] = [(key, text.encode()) for key, text in sorted(headers.items())]
        failures: list[KafkaError] = []
        delivered = [0]

        def told(error: KafkaError | None, _: Message) -> None:
            delivered[0] += 1
            if error is not None:
                failures.append(error)

        with self._asking():
            producer = self._producer
            for value, key in zip(values, keys, strict=True):
                while True:
                    try:
                        producer.produce(name, value=value, key=key, headers=head, on_delivery=told)
                        break
                    except BufferError:
                        producer.poll(0.1)

        def wait() -> None:
            self._wait_for(topic, producer, len(values), delivered, failures)
            if failures:
                # Nothing of it was taken: the topic was deleted since this process last looked.
                self.create(topic)
                self._retire_producer()
                self.publish(topic, values, keys, headers)

        def done() -> bool:
            producer.poll(0)
            return delivered[0] >= len(values)

        return Sending(wait, done)

    def _wait_for(
        self, topic: str, producer: Producer, count: int, delivered: list[int], failures: list[KafkaError]
    ) -> None:
        """Wait until it is known of so many records whether the broker has them.

        Returns with failures only where the topic was not there for any of them.
        """
        with self._asking():
            # Others may be under way as well; these are what is waited for.
            deadline = time.monotonic() + 2 * _PATIENCE_SECONDS
            asked = time.monotonic() + _DELIVERY_SECONDS
            while delivered[0] < count:
                producer.flush(0.05)
                now = time.monotonic()
                if now > deadline:
                    # What waits here would be sent when the broker is back, beside what the caller sends again.
                    producer.purge()
                    self._retire_producer()
                    raise BusUnavailable(f"Kafka at {self.place.servers} has taken {delivered[0]} of {count} records")
                if now > asked:
                    # Where somebody has deleted the topic since this process last looked, a new one is wanted.
                    # A broker that is away does not say: the records go on waiting for it.
                    with suppress(BusUnavailable):
                        self.create(topic)
                    asked = now + _DELIVERY_SECONDS
        if failures:
            again = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}
            if len(failures) == count and {one.code() for one in failures} <= again:
                return
            raise BusUnavailable(f"Kafka at {self.place.servers}: {failures[0]}")

    def _retire_producer(self) -> None:
        """Let go of a producer that believes a topic to be gone."""
        producer = self.__dict__.pop("_producer", None)
        if producer is not None:
            producer.flush(_DELIVERY_SECONDS)

    def watermarks(self, topic: str) -> dict[int, tuple[int, int]]:
        """See `Bus.watermarks`."""
        return self._identified_watermarks(topic)[1]

    def _identified_watermarks(self, topic: str) -> tuple[str | None, dict[int, tuple[int, int]]]:
        with self._turn, self._asking():
            found = self._description(topic)
            if found is None:
                return None, {}
            self._check_client(topic, _identity(found))
            name, marks = self.place.name(topic), {}
            for number in sorted(one.id for one in found.partitions):
                asked = self._consumer.get_watermark_offsets(TopicPartition(name, number), timeout=_PATIENCE_SECONDS)
                if asked is None:
                    raise BusUnavailable(f"Kafka at {self.place.servers} does not say where {topic} ends")
                marks[number] = asked
        return _identity(found), marks

    def read(self, topic: str, partition: int, first: int, last: int) -> Records:
        """See `Bus.read`."""
        identity, marks = self._identified_watermarks(topic)
        kept, end = marks.get(partition, (0, -1))
        if last > end or (first < kept and first < last):
            raise LookupError(f"topic {topic} does not hold [{first}, {last}) of partition {partition}")
        records = Records([], [], [], [])
        if first >= last:
            return records
        known: dict[Header, str] = {}
        with self._turn, self._asking():
            self._go_to(topic, identity, partition, first)
            at, deadline = first, time.monotonic() + _PATIENCE_SECONDS
            while at < last:
                found = self._consumer.consume(min(last - at, _AT_ONCE), timeout=0.5)
                messages = self._good(topic, found)
                if messages:
                    _append(records, messages, known)
                    at, deadline = records.offsets[-1] + 1, time.monotonic() + _PATIENCE_SECONDS
                elif time.monotonic() > deadline:
                    raise BusUnavailable(f"Kafka at {self.place.servers} gave nothing of {topic} from offset {at} on")
            self._reading = (topic, identity, partition, at)
        if len(records) != last - first or records.offsets[0] != first:
            raise LookupError(f"topic {topic} has {len(records)} of the {last - first} records of [{first}, {last})")
        return records

    def tail(
        self, topic: str, after: Mapping[int, int], wait: float, most: int = 50_000, only_values: bool = False
    ) -> dict[int, Records]:
        """See `Bus.tail`. The client that waits is not the one that `read` uses: what it has fetched ahead stays."""
        name = self.place.name(topic)
        with self._turn, self._asking():
            consumer, stands = self._tails.get(topic, (None, {}))
            if consumer is None:
                consumer = self._new_consumer()
            if stands != dict(after):
                consumer.assign([TopicPartition(name, partition, offset) for partition, offset in after.items()])
            # Where this call ends badly the next one begins anew.
            self._tails[topic] = (consumer, {})
            found: dict[int, Records] = {}
            known: dict[Header, str] = {}
            first, taken = consumer.poll(wait), 1
            messages = [] if first is None else [first]
            while messages:
                parts: dict[int, list[Message]] = {}
                for one in self._good(topic, messages):
                    parts.setdefault(cast("int", one.partition()), []).append(one)
                for partition, own in parts.items():
                    records = found.setdefault(partition, Records([], [], [], []))
                    if only_values:
                        append_values(records, _offsets(own), [one.value() for one in own])
                    else:
                        _append(records, own, known)
                messages = consumer.consume(min(most - taken, _AT_ONCE), timeout=0) if taken < most else []
                taken += len(messages)
            reached = {partition: records.offsets[-1] + 1 for partition, records in found.items()}
            self._tails[topic] = (consumer, dict(after) | reached)
        return found

    def _check_client(self, topic: str, identity: str) -> None:
        """Let go of a client that knows another topic of this name: what it has fetched and heard is of that one."""
        if self._identities.setdefault(topic, identity) == identity:
            return
        self._identities = {topic: identity}
        self._reading = None
        consumer = self.__dict__.pop("_consumer", None)
        if consumer is not None:
            consumer.close()

    def _go_to(self, topic: str, identity: str | None, partition: int, offset: int) -> None:
        """Make the next messages those from an offset on."""
        if self._reading == (topic, identity, partition, offset):
            return
        self._reading = None
        self._consumer.assign([TopicPartition(self.place.name(topic), partition, offset)])

    def _good(self, topic: str, messages: Sequence[Message]) -> list[Message]:
        """The messages that are records. Raises `LookupError` where the broker says that an offset is gone."""
        good = []
        for one in messages:
            error = one.error()
            if error is None:
                good.append(one)
            elif error.code() in _GONE:
                raise LookupError(f"topic {topic} does not hold what was asked for: {error}")
        return good


def _identity(found: TopicDescription) -> str:
    """The topic id as kafka-python writes it."""
    # Its type hints leave these two out.
    topic_id = cast("Any", found.topic_id)
    most, least = topic_id.get_most_significant_bits(), topic_id.get_least_significant_bits()
    return str(UUID(int=(most % (1 << 64)) << 64 | least % (1 << 64)))


def _append(records: Records, messages: Sequence[Message], known: dict[Header, str]) -> None:
    values, keys = [one.value() for one in messages], [one.key() for one in messages]
    heads = cast("list[list[tuple[str, bytes | None]]]", [one.headers() or [] for one in messages])
    append(records, _offsets(messages), values, keys, heads, known)


def _offsets(messages: Sequence[Message]) -> list[int]:
    return cast("list[int]", [one.offset() for one in messages])
