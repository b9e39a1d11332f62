"""The concrete parts behind each profile: bus, archive, lake, state, models, made on first use from the settings.

Which part an asset gets is said in `definitions`; nothing else may know which profile runs.
"""

from __future__ import annotations

from functools import cached_property, lru_cache, partial

from quantlytic_assets.ingest import Ingest
from quantlytic_assets.learning.registry import ModelStore
from quantlytic_assets.partitions import archive_keys
from quantlytic_assets.settings import Settings
from quantlytic_assets.storage.archive import Archive, local_archive
from quantlytic_assets.storage.attempts import AttemptLog
from quantlytic_assets.storage.bus import Bus, LocalBus
from quantlytic_assets.storage.lake import Lake
from quantlytic_assets.storage.landing import Lander
from quantlytic_assets.trading.ledger import Ledger
from quantlytic_assets.universe import Dataset
from quantlytic_assets.vendors.protocol import Vendor
from quantlytic_assets.vendors.registry import make_vendor


class Resources:
    """Everything of one installation, each part opened when it is first asked for."""

    def __init__(self, settings: Settings):
        self.settings = settings

    @cached_property
    def bus(self) -> Bus:
        """Where records are published."""
        return LocalBus(self.settings.directory("bus"))

    @cached_property
    def archive(self) -> Archive:
        """The permanent objects."""
        return local_archive(str(self.settings.directory("archive")))

    @cached_property
    def lake(self) -> Lake:
        """The tables."""
        return Lake(self.settings.directory("lake"), self.settings.duckdb_memory, self.settings.duckdb_threads)

    @cached_property
    def state_url(self) -> str:
        """The database of what can't be recomputed, as SQLAlchemy names it."""
        return f"sqlite:///{self.settings.directory('state') / 'quantlytic.sqlite'}"

    @cached_property
    def attempts(self) -> AttemptLog:
        """What vendors were asked in vain."""
        return AttemptLog(self.state_url)

    @cached_property
    def ledger(self) -> Ledger:
        """Orders and fills."""
        return Ledger(self.state_url)

    @cached_property
    def models(self) -> ModelStore:
        """The MLflow store."""
        home = self.settings.directory("mlflow")
        return ModelStore(f"sqlite:///{home / 'mlflow.db'}", str(home / "artifacts"))

    @lru_cache  # noqa: B019 - one Resources lives as long as its process
    def vendor(self, name: str) -> Vendor:
        """A vendor by its name in the universe."""
        return make_vendor(name)

    def lander(self, dataset: Dataset) -> Lander:
        """What lands a dataset's topic."""
        return Lander(
            self.bus, self.archive, dataset.name, partial(archive_keys, dataset=dataset), self.settings.claim_records
        )

    def ingest(self, dataset: Dataset) -> Ingest:
        """What fetches and lands a dataset."""
        vendors = [self.vendor(name) for name in dataset.vendors]
        return Ingest(dataset, vendors, self.archive, self.attempts, self.lander(dataset))
