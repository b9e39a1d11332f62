"""What every command starts from: settings, universe, resources and the Dagster instance of one installation."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from quantlytic_assets.universe.models import PortfolioStrategy

if TYPE_CHECKING:
    from dagster import DagsterInstance, Definitions

    from quantlytic_assets.resources import Resources
    from quantlytic_assets.settings import Settings
    from quantlytic_assets.universe.models import Dataset, Strategy, Universe


class CommandError(Exception):
    """A command can't do what was asked; the message says why and what to do next."""


class UsageError(CommandError):
    """A command was asked for something that does not exist or makes no sense (exit code 2)."""


@dataclass(frozen=True)
class Named:
    """What a command was asked to work on: a dataset with its strategies, or one strategy."""

    dataset: Dataset
    strategies: list[Strategy]
    is_strategy: bool = False


class Installation:
    """Parts are made when a command first needs them, so that a light command stays light."""

    @cached_property
    def settings(self) -> Settings:
        """From the environment."""
        from quantlytic_assets.settings import load_settings
        from quantlytic_assets.storage.session_tables import keep_session_tables

        settings = load_settings()
        keep_session_tables(settings)
        return settings

    @cached_property
    def universe(self) -> Universe:
        """From the universe file."""
        from quantlytic_assets.universe.loading import load_universe

        return load_universe(self.settings.universe)

    @cached_property
    def resources(self) -> Resources:
        """Bus, archive, lake and the rest."""
        from quantlytic_assets.resources import make_resources

        return make_resources(self.settings)

    @cached_property
    def definitions(self) -> Definitions:
        """The asset graph."""
        from quantlytic_assets.definitions import build_definitions

        return build_definitions(self.settings)

    @cached_property
    def instance(self) -> DagsterInstance:
        """The Dagster instance that also the web UI shows."""
        from dagster import DagsterInstance

        from quantlytic_assets.commands.own_runs import end_killed_runs

        self.prepare_dagster_home()
        # Dagster makes its databases when they are first opened, and two processes that make them at once both fail.
        with self.resources.lock("opening-dagster"):
            instance = DagsterInstance.get()
            end_killed_runs(instance, self.resources)
        return instance

    def prepare_dagster_home(self) -> None:
        """Point this process and its children at the installation's own Dagster home and universe."""
        home = self.settings.directory("dagster")
        ours = self.resources.dagster_yaml
        placed = home / "dagster.yaml"
        if not placed.exists() or placed.read_bytes() != ours.read_bytes():
            shutil.copyfile(ours, placed)
        os.environ["DAGSTER_HOME"] = str(home)
        os.environ["DAGSTER_DISABLE_TELEMETRY"] = "true"
        # As long as a run may take to start: the code server answers only when its process has begun. An answer that is
        # not waited for fails a run that is about to work.
        os.environ.setdefault("DAGSTER_GRPC_TIMEOUT_SECONDS", "300")
        os.environ.setdefault("DAGSTER_GRPC_SHUTDOWN_GRACE_PERIOD", "60")
        os.environ["QUANTLYTIC_HOME"] = str(self.settings.data)
        os.environ["QUANTLYTIC_UNIVERSE"] = str(self.settings.universe.absolute())
        os.environ.update(self.resources.dagster_environment())

    def dataset(self, name: str) -> Dataset:
        """A dataset of the universe; raises `UsageError` naming those there are."""
        if name not in self.universe.datasets:
            there = _listed(self.universe.datasets)
            raise UsageError(f"no dataset {name!r} in {self.universe.path}; there are: {there}")
        return self.universe.datasets[name]

    def dataset_or_strategy(self, name: str) -> Named:
        """What a name of either kind means; raises `UsageError` naming those there are."""
        universe = self.universe
        if name in universe.strategies:
            strategy = universe.strategies[name]
            return Named(universe.datasets[strategy.dataset], [strategy], True)
        if name not in universe.datasets:
            raise UsageError(
                f"no dataset or strategy {name!r} in {universe.path}; there are: "
                f"{_listed([*universe.datasets, *universe.strategies])}"
            )
        return Named(universe.datasets[name], [one for one in universe.strategies.values() if one.dataset == name])


def with_members(strategies: Iterable[Strategy]) -> list[Strategy]:
    """The strategies, each once, and before portfolios their members."""
    found: dict[str, Strategy] = {}
    for strategy in strategies:
        for one in (*(strategy.members if isinstance(strategy, PortfolioStrategy) else ()), strategy):
            found.setdefault(one.name, one)
    # A portfolio that stands before its members in the file comes after them.
    return sorted(found.values(), key=lambda one: isinstance(one, PortfolioStrategy))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
