"""The concrete parts behind each profile: bus, archive, lake, state, models, made on first use from the settings.

Which part an asset gets is said in `definitions`; nothing else may know which profile runs. What a profile needs of
Dagster itself (its home's configuration) is `dagster_environment`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from quantlytic_assets.settings import CHECKOUT, Settings, revealed
from quantlytic_assets.storage.lake import Lake, ServicesPlace, local_lake
from quantlytic_assets.storage.object_store import S3Place
from quantlytic_assets.storage.postgres import Held, advisory_lock, ensure_database

# Each part's module is loaded with the part: to ask the lake must not cost loading Kafka, SQLAlchemy and vendors.
if TYPE_CHECKING:
    from quantlytic_assets.learning.registry import ModelStore
    from quantlytic_assets.notify import Notifier
    from quantlytic_assets.pages.links import Links
    from quantlytic_assets.services.broker_desk import BrokerDesk
    from quantlytic_assets.services.ingest import Ingest
    from quantlytic_assets.serving.hot_store import HotStore
    from quantlytic_assets.storage.accounts import Accounts
    from quantlytic_assets.storage.action_archive import ActionArchive
    from quantlytic_assets.storage.alert_states import AlertStates
    from quantlytic_assets.storage.api_keys import ApiKeys
    from quantlytic_assets.storage.archive import Archive
    from quantlytic_assets.storage.attempts import AttemptLog
    from quantlytic_assets.storage.broker_ledger import BrokerLedger
    from quantlytic_assets.storage.budgets import BudgetLog
    from quantlytic_assets.storage.bus import Bus
    from quantlytic_assets.storage.landing import Lander
    from quantlytic_assets.universe.models import Dataset, Universe
    from quantlytic_assets.vendors.protocol import Vendor, VendorTraits

# One process at a time is connected with a broker's account, and one trades a strategy there.
BROKER_LOCK = "broker-ibkr"


def trading_lock(strategy: str) -> str:
    """The name of the lock of who trades a strategy at a broker."""
    return f"trading-{strategy}"


class Resources:
    """Everything of one installation, each part opened when it is first asked for. Embedded: no server at all."""

    dagster_yaml = CHECKOUT / "dagster.yaml"

    def __init__(self, settings: Settings):
        self.settings = settings

    @cached_property
    def bus(self) -> Bus:
        """Where records are published."""
        from quantlytic_assets.storage.bus import LocalBus

        return LocalBus(self.settings.directory("bus"), self.settings.kafka_ticks_retention_hours)

    @cached_property
    def archive(self) -> Archive:
        """The permanent objects."""
        from quantlytic_assets.storage.archive import local_archive

        return local_archive(str(self.settings.directory("archive")))

    @cached_property
    def actions(self) -> ActionArchive:
        """The archive's corporate actions."""
        from quantlytic_assets.storage.action_archive import ActionArchive

        return ActionArchive(self.archive)

    @cached_property
    def lake(self) -> Lake:
        """The tables."""
        return local_lake(self.settings.directory("lake"), self.settings.duckdb_memory, self.settings.duckdb_threads)

    @cached_property
    def state_url(self) -> str:
        """The database of what can't be recomputed, as SQLAlchemy names it."""
        return f"sqlite:///{self.settings.directory('state') / 'quantlytic.sqlite'}"

    @cached_property
    def attempts(self) -> AttemptLog:
        """What vendors were asked in vain."""
        from quantlytic_assets.storage.attempts import AttemptLog

        return AttemptLog(self.state_url)

    @cached_property
    def budgets(self) -> BudgetLog:
        """What vendors were asked, against their rate limits."""
        from quantlytic_assets.storage.budgets import BudgetLog

        return BudgetLog(self.state_url)

    @cached_property
    def accounts(self) -> Accounts:
        """Accounts of strategies that follow a rule: events, sessions and states."""
        from quantlytic_assets.storage.accounts import Accounts

        return Accounts(self.state_url)

    @cached_property
    def api_keys(self) -> ApiKeys:
        """Keys of the API, and its audit log."""
        from quantlytic_assets.storage.api_keys import ApiKeys

        return ApiKeys(self.state_url)

    @cached_property
    def alert_states(self) -> AlertStates:
        """What was told of alerts on thresholds."""
        from quantlytic_assets.storage.alert_states import AlertStates

        return AlertStates(self.state_url)

    @cached_property
    def hot(self) -> HotStore:
        """What the API serves, in a file of this machine."""
        from quantlytic_assets.serving.hot_store import HotStore

        return HotStore(self.settings.directory("hot"))

    @cached_property
    def broker_ledger(self) -> BrokerLedger:
        """Orders at brokers, their executions, and what the accounts there are worth."""
        from quantlytic_assets.storage.broker_ledger import BrokerLedger

        return BrokerLedger(self.state_url)

    def broker_desk(self, universe: Universe) -> BrokerDesk:
        """A desk at the paper account of the settings, not connected yet; whoever connects holds `BROKER_LOCK`.

        Raises `LiveAccount` for settings that could lead to a live account.
        """
        from datetime import time

        from quantlytic_assets.brokers.ibkr import IbkrBroker
        from quantlytic_assets.brokers.paper_guard import PaperGuard
        from quantlytic_assets.brokers.restarts import Restarts
        from quantlytic_assets.services.broker_desk import BrokerDesk
        from quantlytic_assets.services.broker_trading import instruments

        settings = self.settings
        allowed = settings.ibkr_allowed_accounts.replace(",", " ").split()
        guard = PaperGuard(settings.ibkr_account, allowed, settings.ibkr_paper_port)
        broker = IbkrBroker(guard, settings.ibkr_paper_host, settings.ibkr_paper_port, settings.ibkr_paper_client_id)
        restarts = Restarts(time.fromisoformat(settings.ibkr_restart), settings.ibkr_restart_zone)
        return BrokerDesk(broker, self.broker_ledger, instruments(universe), restarts)

    @cached_property
    def models(self) -> ModelStore:
        """The MLflow store."""
        from quantlytic_assets.learning.registry import ModelStore

        home = self.settings.directory("mlflow")
        return ModelStore(f"sqlite:///{home / 'mlflow.db'}", str(home / "artifacts"))

    @cached_property
    def notifier(self) -> Notifier:
        """Whom alerts are sent to."""
        from quantlytic_assets.notify import Notifier, addresses

        return Notifier(addresses(self.settings.notify.get_secret_value()) if self.settings.notify else ())

    @cached_property
    def links(self) -> Links:
        """Addresses of the pages with charts and reports."""
        from quantlytic_assets.pages.links import Links

        return Links(self.settings.pages, self.settings.dashboard)

    @contextmanager
    def lock(self, name: str, wait: bool = True) -> Iterator[None]:
        """Hold a lock that every process of this installation knows by `name`; whatever ends a process lets it go.

        Without `wait` raises `Held` where another one holds it.
        """
        directory = self.settings.directory("state") / "locks"
        directory.mkdir(exist_ok=True)
        path = directory / f"{name}.lock"
        try:
            with FileLock(path, timeout=-1 if wait else 0):
                yield
                if not wait:
                    # Nobody waits for such a name: it was for once.
                    path.unlink(missing_ok=True)
        except Timeout:
            raise Held(name) from None

    def dagster_environment(self) -> dict[str, str]:
        """What `dagster_yaml` reads from the environment, beside the settings; made ready where it must be."""
        # The materializations of a range run in one transaction: half of what Dagster takes for a partition.
        return {"DAGSTER_EVENT_BATCH_SIZE": "1000"}

    @lru_cache  # noqa: B019 - one Resources lives as long as its process
    def vendor(self, name: str) -> Vendor:
        """A vendor by its name in the universe."""
        from quantlytic_assets.vendors.registry import make_vendor

        return make_vendor(name, self.settings)

    def traits(self, dataset: Dataset) -> VendorTraits | None:
        """What missing bars mean where a dataset's vendors were asked for them; None where it has none."""
        from quantlytic_assets.vendors.policy import joint_traits

        vendors = [self.vendor(name) for name in dataset.vendors]
        return joint_traits(vendors, dataset.name) if vendors else None

    def lander(self, dataset: Dataset) -> Lander:
        """What lands a dataset's topic."""
        from quantlytic_assets.calendars.partitions import archive_keys
        from quantlytic_assets.storage.landing import Lander

        return Lander(
            self.bus, self.archive, dataset.name, partial(archive_keys, dataset=dataset), self.settings.claim_records
        )

    def ingest(self, dataset: Dataset) -> Ingest:
        """What fetches and lands a dataset."""
        from quantlytic_assets.services.ingest import Ingest

        vendors = [self.vendor(name) for name in dataset.vendors]
        return Ingest(dataset, vendors, self.archive, self.attempts, self.lander(dataset), self.budgets)


class ServiceResources(Resources):
    """The same parts on Kafka, an S3 store and Postgres. Local directories keep only logs, reports and dbt's files."""

    dagster_yaml = CHECKOUT / "deploy" / "dagster.services.yaml"

    @cached_property
    def bus(self) -> Bus:
        """See `Resources.bus`."""
        from quantlytic_assets.storage.kafka_bus import KafkaBus, KafkaPlace

        settings = self.settings
        security: dict[str, Any] = {"security_protocol": settings.kafka_security}
        if settings.kafka_security.startswith("SASL"):
            security |= {
                "sasl_mechanism": "SCRAM-SHA-512",
                "sasl_plain_username": settings.kafka_user,
                "sasl_plain_password": settings.kafka_password.get_secret_value() if settings.kafka_password else None,
            }
        place = KafkaPlace(
            servers=settings.kafka,
            namespace=settings.namespace,
            partitions=settings.kafka_partitions,
            replication=settings.kafka_replication,
            bars_retention_hours=settings.kafka_bars_retention_hours,
            ticks_retention_hours=settings.kafka_ticks_retention_hours,
            security=security,
        )
        if settings.kafka_driver == "confluent":
            from quantlytic_assets.storage.confluent_bus import ConfluentBus

            return ConfluentBus(place)
        return KafkaBus(place)

    @cached_property
    def bucket(self) -> S3Place:
        """The bucket of everything, made if the store does not have it yet."""
        settings = self.settings
        place = S3Place(
            bucket=settings.s3_bucket,
            prefix=settings.namespace,
            endpoint=settings.s3_endpoint,
            region=settings.s3_region,
            access_key=revealed(settings.s3_access_key),
            secret_key=revealed(settings.s3_secret_key),
        )
        place.make_bucket()
        return place

    @property
    def _extensions(self) -> Path:
        return self.settings.directory("lake") / "extensions"

    @cached_property
    def archive(self) -> Archive:
        """See `Resources.archive`."""
        from quantlytic_assets.storage.archive import s3_archive

        return s3_archive(self.bucket, self._extensions)

    @cached_property
    def lake(self) -> Lake:
        """See `Resources.lake`."""
        settings = self.settings
        connection = {
            "host": settings.postgres_host,
            "port": str(settings.postgres_port),
            "user": settings.postgres_user,
            "password": revealed(settings.postgres_password),
            "database": settings.database("lake"),
        }
        place = ServicesPlace(settings.postgres_url("lake"), connection, self.bucket)
        return Lake(place, settings.directory("lake"), settings.duckdb_memory, settings.duckdb_threads)

    def _database(self, part: str) -> str:
        url = self.settings.postgres_url(part)
        ensure_database(url)
        return url

    @cached_property
    def state_url(self) -> str:
        """See `Resources.state_url`."""
        return self._database("state")

    @cached_property
    def models(self) -> ModelStore:
        """See `Resources.models`."""
        from quantlytic_assets.learning.registry import ModelStore

        return ModelStore(self._database("mlflow"), self.bucket.url("mlflow"))

    @contextmanager
    def lock(self, name: str, wait: bool = True) -> Iterator[None]:
        """See `Resources.lock`; here it holds across machines."""
        with advisory_lock(self.state_url, name, wait):
            yield

    def dagster_environment(self) -> dict[str, str]:
        """See `Resources.dagster_environment`."""
        self._database("dagster")
        return {
            "QUANTLYTIC_DAGSTER_DATABASE": self.settings.database("dagster"),
            "QUANTLYTIC_POSTGRES_HOST": self.settings.postgres_host,
            "QUANTLYTIC_POSTGRES_PORT": str(self.settings.postgres_port),
            "QUANTLYTIC_POSTGRES_USER": self.settings.postgres_user,
            "QUANTLYTIC_S3_BUCKET": self.bucket.bucket,
            # boto3 reads the region under this name only.
            "AWS_DEFAULT_REGION": self.settings.s3_region,
            **super().dagster_environment(),
            "QUANTLYTIC_LOGS_PREFIX": "/".join(part for part in (self.settings.namespace, "dagster-logs") if part),
        }


def make_resources(settings: Settings) -> Resources:
    """The parts of the settings' profile."""
    return {"embedded": Resources, "services": ServiceResources}[settings.profile](settings)
