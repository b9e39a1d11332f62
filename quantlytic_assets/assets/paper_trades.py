"""`<strategy>/paper_trades`: predictions made into orders and fills, once each, and shown as lake tables.

The ledger decides what happened; the tables of the lake are a copy of it. How trading works is in `trading`.
"""

from collections.abc import Mapping
from datetime import date, timedelta

import dagster as dg
import polars as pl

from quantlytic_assets.assets.keys import corporate_actions_key, strategy_key
from quantlytic_assets.assets.models import strategy_metadata
from quantlytic_assets.assets.partitions import trading_definition
from quantlytic_assets.assets.per_partition import chart_and_page, group_by_key, report
from quantlytic_assets.calendars.partitions import Window, windows, with_partition
from quantlytic_assets.resources import Resources
from quantlytic_assets.services.accounts import read_entitlements, read_prices
from quantlytic_assets.tables.predictions import predicted_sessions, predictions
from quantlytic_assets.tables.trading import session_counts
from quantlytic_assets.trading.entitlements import Entitlements
from quantlytic_assets.trading.paper import PREDICTION_COLUMNS, trade
from quantlytic_assets.trading.portfolio import equity_curve, positions
from quantlytic_assets.universe.models import Dataset, Strategy

# An order decided at the end of a window is filled by the next bar, which lies after it.
_NEXT_BAR = timedelta(days=14)


def paper_trades_asset(dataset: Dataset, strategy: Strategy, common: Mapping[str, object]) -> dg.AssetsDefinition:
    """The asset that trades on paper and writes trading.orders, fills, positions and equity."""
    # A new action is no reason to trade: what it changes is published with the next session, or by a backfill.
    actions = corporate_actions_key(dataset)
    condition = common["automation_condition"].ignore(dg.AssetSelection.assets(actions))

    @dg.asset(
        key=strategy_key(strategy, "paper_trades"),
        deps=[strategy_key(strategy, "predictions"), actions],
        partitions_def=trading_definition(dataset, strategy),
        description=f"Orders, fills and positions of {strategy.name}: one order a session and symbol, filled at the "
        "open of the first usable bar after the decision, less slippage and commission. Splits and dividends reach "
        "what is held. A rerun never trades twice.",
        kinds={"ducklake"},
        metadata={**strategy_metadata(strategy), "dagster/table_name": "trading.fills"},
        required_resource_keys={"quantlytic"},
        **{**common, "automation_condition": condition},
    )
    def paper_trades(context: dg.AssetExecutionContext) -> None:
        resources: Resources = context.resources.quantlytic
        ledger = resources.ledger
        (window,) = windows(dataset, context.partition_keys)
        every = predicted_sessions(resources.lake, strategy.name)
        sessions = every.filter((every >= window.first) & (every < window.last))
        waiting = ledger.open_orders(strategy.name)
        # Orders from before that this run fills change earlier rows too.
        affected = min([window.first, *waiting["session"].to_list()])
        predicted = predictions(
            resources.lake, strategy.name, PREDICTION_COLUMNS, since=window.first, before=window.last
        )
        bars = read_prices(resources.lake, dataset, strategy, affected, window.last + _NEXT_BAR)
        entitlements = read_entitlements(resources.lake, strategy)
        _check_shares(resources, dataset, strategy, entitlements)
        summary = trade(
            strategy, predicted, bars, ledger, sessions, predicted_sessions=every, entitlements=entitlements
        )
        context.log.info(str(summary))
        _publish(resources, dataset, strategy, affected, entitlements)
        counts = _counts(resources, dataset, strategy, window)
        metadata = group_by_key(context.partition_keys, counts, {"dagster/partition_row_count": 0, "fills": 0})
        links = resources.links
        for key, entry in metadata.items():
            entry.update(
                chart_and_page(links.trading_chart(strategy.name, key, "trades"), links.strategy(strategy.name))
            )
        report(context, metadata)

    return paper_trades


def _check_shares(resources: Resources, dataset: Dataset, strategy: Strategy, entitlements: Entitlements) -> None:
    """Raise `dg.Failure` where fills on record are in other shares than their bars: the account would be false."""
    fills = resources.ledger.fills(strategy.name)
    if fills.is_empty() or entitlements.steps.is_empty():
        return
    first, last = fills["fill_session"].min(), fills["fill_session"].max()
    bars = read_prices(resources.lake, dataset, strategy, first, last + timedelta(days=1))
    wrong = entitlements.in_later_shares(fills, bars)
    if len(wrong):
        raise dg.Failure(
            f"{len(wrong)} fills of {', '.join(wrong['symbol'].unique().sort())}, {wrong['fill_session'].min()} to "
            f"{wrong['fill_session'].max()}, are in shares of after a split that became known later, and their bars "
            f"are not; to trade the past anew: quantlytic backfill {strategy.name} --restart"
        )


def _publish(
    resources: Resources, dataset: Dataset, strategy: Strategy, since: date, entitlements: Entitlements
) -> None:
    """Copy what the ledger says of sessions from `since` on into the lake, with the positions that follow from it."""
    ledger = resources.ledger
    sessions = ledger.decided_sessions(strategy.name)
    orders = ledger.orders(strategy.name, since)
    fills = ledger.fills(strategy.name)
    shown = sessions.filter(sessions >= since)
    first = fills["fill_session"].min() if len(fills) else since
    closes = read_prices(resources.lake, dataset, strategy, first, None)
    held = positions(strategy.name, fills, closes, sessions, entitlements)
    curve = equity_curve(held, fills, strategy.capital, sessions, entitlements)
    mine = "strategy = ? AND session >= ?"
    resources.lake.replace(
        [
            ("trading.orders", mine, [strategy.name, since], orders),
            ("trading.fills", mine, [strategy.name, since], fills.filter(pl.col("session") >= since)),
            ("trading.positions", mine, [strategy.name, since], held.filter(pl.col("session").is_in(shown.implode()))),
            (
                "trading.equity",
                mine,
                [strategy.name, since],
                curve.filter(pl.col("session").is_in(shown.implode())).select(
                    pl.lit(strategy.name).alias("strategy"), *[name for name in curve.columns if name != "strategy"]
                ),
            ),
        ]
    )


def _counts(resources: Resources, dataset: Dataset, strategy: Strategy, window: Window) -> dict[str, dict[str, object]]:
    rows = session_counts(resources.lake, strategy.name, since=window.first, before=window.last)
    per_key = (
        with_partition(rows, dataset)
        .group_by("partition", maintain_order=True)
        .agg(
            pl.col("orders", "fills", "rejected", "open").sum(),
            pl.col("equity", "costs_to_date").last(),
            pl.col("fills").sum().alias("dagster/partition_row_count"),
        )
    )
    return {row.pop("partition"): row for row in per_key.iter_rows(named=True)}
