"""Where the storage tests keep things: the same parts on this machine's disk and on the real servers.

A `Place` can be handed to other processes, and `place / "name"` is another one, apart from it.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import obstore
import sqlalchemy as sa

from quantlytic_assets.resources import Resources, make_resources
from quantlytic_assets.settings import Settings
from quantlytic_assets.storage.confluent_bus import ConfluentBus
from quantlytic_assets.storage.kafka_bus import KafkaBus, KafkaPlace

PROFILES = ("embedded", "services")
_OPEN: dict[Settings, Resources] = {}


@dataclass(frozen=True)
class Place:
    """One installation's settings, with what tests do to it."""

    settings: Settings

    def __truediv__(self, name: str) -> Place:
        changes: dict = {"home": self.settings.data / name}
        if self.settings.profile == "services":
            changes["namespace"] = f"{self.settings.namespace}_{name}".lower()
        return Place(self.settings.model_copy(update=changes))

    @property
    def resources(self) -> Resources:
        """The parts, opened once a process."""
        return _resources(self.settings)

    @property
    def embedded(self) -> bool:
        """Whether there is no server behind it."""
        return self.settings.profile == "embedded"

    @property
    def secrets(self) -> list[str]:
        """What must not be written anywhere."""
        if self.embedded:
            return []
        return [self.settings.s3_secret_key.get_secret_value(), self.settings.postgres_password.get_secret_value()]

    @property
    def _kafka(self) -> KafkaBus:
        """The bus as what operators do to it needs it, whatever its driver."""
        bus = self.resources.bus
        return bus if isinstance(bus, KafkaBus) else _kafka(bus.place)

    def delete_topic(self, topic: str) -> None:
        """Delete a topic as an operator would."""
        if self.embedded:
            for path in self.settings.directory("bus").glob(f"{topic}.sqlite*"):
                path.unlink()
            return
        bus = self._kafka
        bus._admin.delete_topics([bus.place.name(topic)])

    def delete_records(self, topic: str, before: int) -> None:
        """Drop the records of partition 0 before an offset, as retention does."""
        if self.embedded:
            bus = self.resources.bus
            with bus._open(topic) as connection:
                connection.execute('DELETE FROM records WHERE "offset" < ?', (before,))
            return
        from kafka import TopicPartition

        bus = self._kafka
        bus._admin.delete_records({TopicPartition(bus.place.name(topic), 0): before})

    def delete_lake(self) -> None:
        """Delete the lake as a user would: its catalog and its files."""
        if self.embedded:
            shutil.rmtree(self.settings.directory("lake"))
            return
        store = self.resources.bucket.store("lake")
        obstore.delete(store, [item["path"] for batch in obstore.list(store) for item in batch])
        engine = sa.create_engine(
            sa.make_url(self.settings.postgres_url("lake")).set(database="postgres"), isolation_level="AUTOCOMMIT"
        )
        name = self.settings.database("lake")
        with engine.connect() as connection:
            # WITH (FORCE) would also want to end the server's own autovacuum there, and may not; it yields without.
            own = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name AND usename = user"
            connection.execute(sa.text(own), {"name": name})
            connection.exec_driver_sql(f'DROP DATABASE "{name}"')


_KAFKA: dict[str, KafkaBus] = {}


def _kafka(place: KafkaPlace) -> KafkaBus:
    return _KAFKA.setdefault(place.namespace, KafkaBus(place))


def _resources(settings: Settings) -> Resources:
    if settings not in _OPEN:
        _OPEN[settings] = make_resources(settings)
    return _OPEN[settings]


def make_settings(profile: str, home: Path, **changes: object) -> Settings:
    """Settings of a fresh installation; with `services` on the servers that the environment names."""
    wanted: dict = {"profile": profile, "home": home, "kafka_partitions": 1}
    if profile == "services":
        if "QUANTLYTIC_KAFKA" not in os.environ:
            raise RuntimeError(
                "these tests want the real servers: run `make test`, or `scripts/services run -- pytest …`"
            )
        wanted["namespace"] = f"t{uuid.uuid4().hex[:8]}"
    return Settings(**(wanted | changes))


@contextmanager
def opened(profile: str, home: Path, **changes: object) -> Iterator[Place]:
    """A fresh place; connections of this process are closed at the end."""
    try:
        yield Place(make_settings(profile, home, **changes))
    finally:
        close_all()


@contextmanager
def with_driver(name: str, home: Path, **changes: object) -> Iterator[Place]:
    """A fresh place of a profile, or of `services` with the driver of Kafka `confluent`."""
    profile, driver = ("services", name) if name == "confluent" else (name, "kafka-python")
    with opened(profile, home, kafka_driver=driver, **changes) as found:
        yield found


def close_all() -> None:
    """Let go of the connections that this process has opened."""
    for resources in _OPEN.values():
        bus = resources.__dict__.get("bus")
        if isinstance(bus, (KafkaBus, ConfluentBus)):
            bus.close()
    for bus in _KAFKA.values():
        bus.close()
    _KAFKA.clear()
    _OPEN.clear()
