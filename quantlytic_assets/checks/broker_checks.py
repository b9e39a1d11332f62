"""Whether positions at a broker are those of the ledger."""

import dagster as dg

from quantlytic_assets.assets.keys import broker_account_key
from quantlytic_assets.resources import Resources
from quantlytic_assets.services.broker_trading import newest_differences


def broker_checks(broker: str) -> list[dg.AssetChecksDefinition]:
    """The check of what was found when somebody looked last; severity is an error, for somebody has to look."""

    @dg.asset_check(
        asset=broker_account_key(broker),
        name="positions_agree",
        description="Shares of each symbol at the broker are those of the accounts in the ledger, and no order of ours "
        "is there twice. docs/brokers.md says what to do where they differ.",
        required_resource_keys={"quantlytic"},
    )
    def check(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        resources: Resources = context.resources.quantlytic
        newest = newest_differences(resources.broker_ledger, broker)
        if newest is None:
            return dg.AssetCheckResult(passed=False, metadata={"differences": "nobody has looked yet"})
        values, differences = newest
        told = {"asked_at": values.at.isoformat(), "differences": "; ".join(differences) or "none"}
        return dg.AssetCheckResult(passed=not differences, metadata=told)

    return [check]
