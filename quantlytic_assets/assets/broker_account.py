"""`ibkr/broker_account`: what the account at a broker is worth, and how it stands beside the ledger.

Whoever makes it sends what waits and takes in what was reported, for all strategies at the broker.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from quantlytic_assets.assets.at_broker import synced
from quantlytic_assets.assets.columns import table_metadata
from quantlytic_assets.assets.keys import broker_account_key
from quantlytic_assets.brokers.protocol import BrokerError
from quantlytic_assets.resources import Resources
from quantlytic_assets.schemas.trading import BROKER_ACCOUNT
from quantlytic_assets.services.broker_trading import newest_differences, publish_values
from quantlytic_assets.universe.models import Universe


def broker_account_asset(broker: str, universe: Universe, common: Mapping[str, Any]) -> dg.AssetsDefinition:
    """The asset that looks at the account and writes trading.broker_account."""

    @dg.asset(
        key=broker_account_key(broker),
        description=f"Equity, cash and exposure of the paper account at {broker} over time "
        "(trading.broker_account), and differences from the ledger. Orders that wait are sent and fills are taken in "
        "on the way; where a process trades there all the time, it is what that one saw last.",
        kinds={"ducklake"},
        metadata=table_metadata(BROKER_ACCOUNT),
        required_resource_keys={"quantlytic"},
        **common,
    )
    def broker_account(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        resources: Resources = context.resources.quantlytic
        try:
            synced(context, resources, universe)
        except BrokerError as error:
            raise dg.Failure(str(error)) from None
        publish_values(resources.lake, resources.broker_ledger, broker)
        newest = newest_differences(resources.broker_ledger, broker)
        if newest is None:
            raise dg.Failure(f"nobody has seen the account at {broker} yet")
        values, differences = newest
        figures = {"equity": values.equity, "cash": values.cash, "gross_exposure": values.gross_exposure}
        return dg.MaterializeResult(
            metadata={
                "account": values.account, "asked_at": values.at.isoformat(), "currency": values.currency,
                **{name: figure for name, figure in figures.items() if figure is not None},
                "differences": len(differences), "found": _listed(differences),
            }
        )  # fmt: skip

    return broker_account


def _listed(lines: Sequence[str]) -> dg.MarkdownMetadataValue:
    return dg.MetadataValue.md("\n".join(f"- {line}" for line in lines) or "none")
