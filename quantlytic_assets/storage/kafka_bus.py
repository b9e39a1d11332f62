"""The bus in Apache Kafka: plain assignment and explicit offsets, no consumer group whose state could be lost."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    OffsetOutOfRangeError,
    TopicAlreadyExistsError,
)
from kafka.producer.future import FutureRecordMetadata

from quantlytic_assets.storage.bus import BusUnavailable, Records, Sending
from quantlytic_assets.storage.kafka_records import Header, append, append_values

_HOUR_MS = 3_600_000
# How long a call waits for a broker that is gone before it gives up. Runs are retried, sensors come again.
_PATIENCE_SECONDS = 30
# How long records may be under way before it is asked whether their topic is still there.
_DELIVERY_SECONDS = 5


@dataclass(frozen=True)
class KafkaPlace:
    """Which cluster, under which prefix, and how topics are made there. `security` holds kafka-python's own options."""

    servers: str
    namespace: str = ""
    partitions: int = 3
    replication: int = 1
    bars_retention_hours: int = 168
    ticks_retention_hours: int = 72
    security: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def name(self, topic: str) -> str:
        """The topic's name in the cluster."""
        return f"{self.namespace}.{topic}" if self.namespace else topic

    def declaration(self, topic: str) -> dict[str, Any]:
        """How a topic is made. Dead letters are kept for good: they are few, and somebody has to look at them."""
        if topic.startswith("ticks."):
            retention = self.ticks_retention_hours * _HOUR_MS
        elif topic.startswith(("bars.", "signals.")):
            retention = self.bars_retention_hours * _HOUR_MS
        else:
            retention = -1
        return {
            "num_partitions": self.partitions,
            "replication_factor": self.replication,
            "configs": {
                "cleanup.policy": "delete",
                "retention.ms": str(retention),
                "retention.bytes": "-1",
                # Every replica that is in step has a record before its producer is told so.
                "min.insync.replicas": str(max(1, self.replication - 1)),
                "unclean.leader.election.enable": "false",
                "message.timestamp.type": "CreateTime",
            },
        }


class KafkaBus:
    """See `Bus`. One consumer, producer and admin client a process, each made on first use; threads take turns."""

    def __init__(self, place: KafkaPlace):
        self.place = place
        # While a broker is away it logs several lines a second; `BusUnavailable` says it once.
        logging.getLogger("kafka").setLevel(logging.CRITICAL)
        # kafka-python's producer bears several threads, its consumer and admin client don't.
        self._turn = threading.RLock()
        # Topics that were there when this process last looked: a look is a request, and feeds publish all the time.
        self._seen: set[str] = set()
        # The id of each topic that the consumer has read from: a client keeps what it has fetched by the topic's name.
        self._read_from: dict[str, str | None] = {}
        # The client that waits for what is new of a topic, and where it stands.
        self._tails: dict[str, tuple[KafkaConsumer, dict[TopicPartition, int]]] = {}

    def _options(self) -> dict[str, Any]:
        return {
            "bootstrap_servers": self.place.servers.split(","),
            "client_id": "quantlytic",
            "bootstrap_timeout_ms": _PATIENCE_SECONDS * 1000,
            "reconnect_backoff_max_ms": 1000,
            "metrics_enabled": False,
            **self.place.security,
        }

    @cached_property
    def _admin(self) -> KafkaAdminClient:
        options = {name: value for name, value in self._options().items() if name != "metrics_enabled"}
        return KafkaAdminClient(**options)

    @cached_property
    def _consumer(self) -> KafkaConsumer:
        return self._new_consumer()

    def _new_consumer(self) -> KafkaConsumer:
        return KafkaConsumer(
            **self._options(),
            group_id=None,
            enable_auto_commit=False,
            # An offset that is gone is an error to be told, not a reason to read from somewhere else.
            auto_offset_reset="none",
            allow_auto_create_topics=False,
            max_poll_records=50_000,
            fetch_max_bytes=64 << 20,
            max_partition_fetch_bytes=16 << 20,
        )

    @cached_property
    def _producer(self) -> KafkaProducer:
        return KafkaProducer(
            **self._options(),
            acks="all",
            enable_idempotence=True,
            linger_ms=5,
            batch_size=1 << 18,
            max_request_size=8 << 20,
            max_block_ms=_PATIENCE_SECONDS * 1000,
            delivery_timeout_ms=2 * _PATIENCE_SECONDS * 1000,
            allow_auto_create_topics=False,
        )

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except KafkaError as error:
            raise BusUnavailable(f"Kafka at {self.place.servers}: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Let go of all connections; the next call makes new ones."""
        for name in ("_consumer", "_producer", "_admin"):
            client = self.__dict__.pop(name, None)
            if client is not None:
                client.close()
        for consumer, _ in self._tails.values():
            consumer.close()
        self._tails.clear()
        self._read_from.clear()

    def _description(self, topic: str) -> dict[str, Any] | None:
        described = self._admin.describe_topics([self.place.name(topic)])
        found = next((one for one in described if not one["error_code"]), None)
        (self._seen.discard if found is None else self._seen.add)(topic)
        return found

    def create(self, topic: str) -> None:
        """See `Bus.create`."""
        with self._turn, self._asking():
            if self._description(topic) is not None:
                return
            try:
                self._admin.create_topics(
                    {self.place.name(topic): self.place.declaration(topic)}, wait_for_metadata=True
                )
            except TopicAlreadyExistsError:
                self._admin.wait_for_topics([self.place.name(topic)])
            self._seen.add(topic)

    def prepare(self, topic: str) -> None:
        """See `Bus.prepare`."""
        self.create(topic)
        with self._asking():
            self._producer.partitions_for(self.place.name(topic))

    def identity(self, topic: str) -> str | None:
        """See `Bus.identity`: Kafka's own topic id."""
        with self._turn, self._asking():
            found = self._description(topic)
        return None if found is None else str(found["topic_id"])

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
        name, head = self.place.name(topic), [(key, text.encode()) for key, text in sorted(headers.items())]
        with self._asking():
            pending = [
                self._producer.send(name, value=value, key=None if key is None else key.encode(), headers=head)
                for value, key in zip(values, keys, strict=True)
            ]
        return Sending(lambda: self._wait_for(topic, pending), lambda: all(one.is_done for one in pending))

    def _wait_for(self, topic: str, pending: Sequence[FutureRecordMetadata]) -> None:
        """Wait until the broker has what was sent to a topic."""
        with self._asking():
            try:
                self._producer.flush(_DELIVERY_SECONDS)
            except KafkaTimeoutError:
                # Where somebody has deleted the topic since this process last looked, the producer waits for a new one.
                self.create(topic)
                self._producer.flush(2 * _PATIENCE_SECONDS)
            for sent in pending:
                sent.get(_PATIENCE_SECONDS)

    def watermarks(self, topic: str) -> dict[int, tuple[int, int]]:
        """See `Bus.watermarks`."""
        return self._identified_watermarks(topic)[1]

    def _identified_watermarks(self, topic: str) -> tuple[str | None, dict[int, tuple[int, int]]]:
        with self._turn, self._asking():
            found = self._description(topic)
            if found is None:
                return None, {}
            parts = [TopicPartition(self.place.name(topic), one["partition_index"]) for one in found["partitions"]]
            starts, ends = self._consumer.beginning_offsets(parts), self._consumer.end_offsets(parts)
        return str(found["topic_id"]), {part.partition: (starts[part], ends[part]) for part in sorted(parts)}

    def read(self, topic: str, partition: int, first: int, last: int) -> Records:
        """See `Bus.read`."""
        identity, marks = self._identified_watermarks(topic)
        kept, end = marks.get(partition, (0, -1))
        if last > end or (first < kept and first < last):
            raise LookupError(f"topic {topic} does not hold [{first}, {last}) of partition {partition}")
        part = TopicPartition(self.place.name(topic), partition)
        records = Records([], [], [], [])
        known: dict[Header, str] = {}
        with self._turn, self._asking():
            self._go_to(part, first, identity)
            at, deadline = first, time.monotonic() + _PATIENCE_SECONDS
            while at < last:
                try:
                    polled = self._consumer.poll(timeout_ms=500, max_records=last - at).get(part, [])
                except OffsetOutOfRangeError:
                    raise LookupError(
                        f"topic {topic} does not hold [{first}, {last}) of partition {partition}"
                    ) from None
                if polled:
                    _append(records, polled, known)
                    at, deadline = polled[-1].offset + 1, time.monotonic() + _PATIENCE_SECONDS
                elif time.monotonic() > deadline:
                    raise BusUnavailable(f"Kafka at {self.place.servers} gave nothing of {topic} from offset {at} on")
        if len(records) != last - first or (len(records) and records.offsets[0] != first):
            raise LookupError(f"topic {topic} has {len(records)} of the {last - first} records of [{first}, {last})")
        return records

    def tail(
        self, topic: str, after: Mapping[int, int], wait: float, most: int = 50_000, only_values: bool = False
    ) -> dict[int, Records]:
        """See `Bus.tail`. The client that waits is not the one that `read` uses: what it has fetched ahead stays."""
        name = self.place.name(topic)
        parts = {TopicPartition(name, partition): offset for partition, offset in after.items()}
        with self._turn, self._asking():
            consumer, stands = self._tails.get(topic, (None, {}))
            if consumer is None:
                consumer = self._new_consumer()
            if set(stands) != set(parts):
                consumer.assign(list(parts))
            for part, offset in parts.items():
                if stands.get(part) != offset:
                    consumer.seek(part, offset)
            self._tails[topic] = (consumer, {})
            try:
                polled = consumer.poll(timeout_ms=int(wait * 1000), max_records=most)
            except OffsetOutOfRangeError as error:
                raise LookupError(f"topic {topic} no longer has the offsets {dict(after)}: {error}") from None
            found: dict[int, Records] = {}
            known: dict[Header, str] = {}
            for part, messages in polled.items():
                if messages:
                    records = found[part.partition] = Records([], [], [], [])
                    if only_values:
                        append_values(records, [one.offset for one in messages], [one.value for one in messages])
                    else:
                        _append(records, messages, known)
                    parts[part] = messages[-1].offset + 1
            self._tails[topic] = (consumer, parts)
        return found

    def _go_to(self, part: TopicPartition, offset: int, identity: str | None) -> None:
        """Make the next poll begin at an offset.

        kafka-python goes on with what it has fetched already where the offset is where it stands, also in a topic that
        was deleted and made anew meanwhile, which has other records there. Then the client is replaced.
        """
        if self._read_from.get(part.topic, identity) != identity:
            self.__dict__.pop("_consumer").close()
            self._read_from.clear()
        self._read_from[part.topic] = identity
        if self._consumer.assignment() != {part} or self._consumer.position(part) != offset:
            self._consumer.assign([part])
            self._consumer.seek(part, offset)


def _append(records: Records, polled: list, known: dict[Header, str]) -> None:
    append(
        records, [one.offset for one in polled], [one.value for one in polled], [one.key for one in polled],
        [one.headers for one in polled], known,
    )  # fmt: skip
