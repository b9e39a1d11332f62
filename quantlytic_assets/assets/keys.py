"""The keys of a dataset's and a strategy's assets, for everybody who names one without making it."""

import dagster as dg

from quantlytic_assets.universe.models import Dataset, Strategy


def raw_bars_key(dataset: Dataset) -> dg.AssetKey:
    """The key of a dataset's raw bars."""
    return dg.AssetKey([dataset.name, "raw_bars"])


def clean_bars_key(dataset: Dataset) -> dg.AssetKey:
    """The key of a dataset's clean bars."""
    return dg.AssetKey([dataset.name, "clean_bars"])


def corporate_actions_key(dataset: Dataset) -> dg.AssetKey:
    """The key of a dataset's corporate actions."""
    return dg.AssetKey([dataset.name, "corporate_actions"])


def coverage_key(dataset: Dataset) -> dg.AssetKey:
    """The key of a dataset's coverage."""
    return dg.AssetKey([dataset.name, "coverage"])


def published_key(dataset: Dataset) -> dg.AssetKey:
    """The key of a dataset's rows in the hot store."""
    return dg.AssetKey([dataset.name, "published"])


def feature_key(dataset: Dataset, model: str) -> dg.AssetKey:
    """The key of a dbt model's table for a dataset."""
    return dg.AssetKey([dataset.name, model])


def broker_account_key(broker: str) -> dg.AssetKey:
    """The key of what an account at a broker is worth."""
    return dg.AssetKey([broker, "broker_account"])


def strategy_key(strategy: Strategy, name: str) -> dg.AssetKey:
    """The key of one of a strategy's assets: model, predictions, signals, paper_trades, performance, published."""
    return dg.AssetKey([strategy.name, name])
