"""What strategies say and hold, put into the hot store: signals, predictions, orders, positions, the account.

Series by the dataset's symbols: `signals/<strategy>` and `predictions/<strategy>`, a block a partition of the dataset.
Facts, JSON: `("strategy", name)` what it is, `("equity", name)` its account at the end of the last session,
`("curve", name)` session and equity of all, `("positions", name)` what it held at the end of the last, `("orders",
name, order id)` each order with its fills.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import orjson
import polars as pl

from quantlytic_assets.calendars.partitions import next_month, partition_key
from quantlytic_assets.market_data.quality.retention import first_hot
from quantlytic_assets.schemas.ml import PREDICTIONS
from quantlytic_assets.schemas.trading import EQUITY, SIGNALS
from quantlytic_assets.services.published_bars import KEYS, with_day
from quantlytic_assets.services.publishing import Published
from quantlytic_assets.serving.encoding import blocks, json_rows
from quantlytic_assets.serving.rows import iso, micros
from quantlytic_assets.serving.updates import Series, Updated, put_blocks
from quantlytic_assets.tables import whole_rows
from quantlytic_assets.tables.changes import newest_snapshot, sessions_since
from quantlytic_assets.tables.select import equal, select
from quantlytic_assets.tables.trading import equity, orders, positions
from quantlytic_assets.universe.models import ModelStrategy, PortfolioStrategy

if TYPE_CHECKING:
    from quantlytic_assets.serving.hot_store import HotStore
    from quantlytic_assets.tables.select import Queries
    from quantlytic_assets.universe.models import Dataset, Strategy

_SIGNAL = ["signal", "target", "strength", "reason", "available_at"]
_PREDICTION = ["score", "prediction", "model_version", "trained_through", "available_at"]
_HELD = ["session", "symbol", "quantity", "average_price", "close", "market_value"]


_SERIES = ((SIGNALS, "signals", _SIGNAL), (PREDICTIONS, "predictions", _PREDICTION))


def publish_strategy(
    lake: Queries,
    hot: HotStore,
    dataset: Dataset,
    strategy: Strategy,
    now: datetime | None = None,
    anew: bool = False,
) -> Published:
    """Publish what changed of a strategy since it was last published: partitions of series, the account whole.

    `anew`: all of it, whatever was published before.
    """
    now = now or datetime.now(UTC)
    name = strategy.name
    with hot.read() as store:
        last = int(store.state("published", name) or b"0")
    newest = newest_snapshot(lake)
    # A lake that was made anew counts from the beginning.
    last = last if last <= newest and not anew else 0
    kept = first_hot(dataset, now.date())
    done = Published(0, Updated())
    for table, kind, columns in _SERIES:
        for since, before in _spans(dataset, sessions_since(lake, table, name, last)):
            if before > kept:
                chosen = whole_rows.between(max(since, kept), before, None)
                rows = select(
                    lake, table, ["symbol", "session", "open_time", *columns], equal("strategy", name), *chosen
                )
                made = blocks(with_day(rows, dataset), KEYS, "open_time", columns)
                days = {day for _, day in made.select(KEYS).iter_rows()}
                places = {(symbol, day) for symbol in strategy.symbols for day in days}
                done.read += len(rows)
                done.updated += put_blocks(hot, Series(dataset.name, f"{kind}/{name}", live=True), made, places, now)
    _put_account(lake, hot, name)
    with hot.write() as store:
        store.put_fact(orjson.dumps(description(strategy, now)), "strategy", name)
        store.put_state(str(newest).encode(), "published", name)
    return done


def _spans(dataset: Dataset, sessions: list[date]) -> list[tuple[date, date]]:
    """Stretches [since, before) of whole partitions that hold these sessions; those a month apart are one."""
    spans: list[tuple[date, date]] = []
    for session in sessions:
        first = date.fromisoformat(partition_key(dataset, session))
        end = next_month(first) if dataset.partition == "month" else first + timedelta(days=1)
        if spans and first - spans[-1][1] < timedelta(days=31):
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((first, end))
    return spans


def _put_account(lake: Queries, hot: HotStore, strategy: str) -> None:
    """The account: equity, positions, orders. Those that are no more go."""
    curve = equity(lake, strategy, EQUITY.polars.names())
    facts: dict[tuple[str, ...], bytes] = {}
    if len(curve):
        points = [[session.isoformat(), value] for session, value in curve.select("session", "equity").iter_rows()]
        facts["equity", strategy] = orjson.dumps(curve.row(-1, named=True))
        facts["curve", strategy] = orjson.dumps(points)
        held = positions(lake, strategy, _HELD).filter(pl.col("session") == curve["session"][-1])
        facts["positions", strategy] = b"[" + ",".join(json_rows(held)).encode() + b"]"
    for order, body in orders_with_fills(lake, strategy).iter_rows():
        facts["orders", strategy, order] = body.encode()
    with hot.write() as store:
        gone = [key for key, _ in store.facts("orders", strategy) if ("orders", strategy, *key) not in facts]
        for key in gone:
            store.delete_fact("orders", strategy, *key)
        for name, body in facts.items():
            store.put_fact(body, *name)


def orders_with_fills(lake: Queries, strategy: str) -> pl.DataFrame:
    """order_ref and JSON of each order of a strategy with its fills in `fills`."""
    every = orders(lake, strategy)
    filled = whole_rows.fills(lake, strategy)
    told = filled.select("fill_time", "price", "quantity", "commission", "slippage")
    fills = (
        filled.select("order_ref")
        .with_columns(json_rows(told).alias("fills"))
        .group_by("order_ref", maintain_order=True)
        .agg(pl.col("fills").str.join(","))
    )
    of_each = every.select("order_ref").join(fills, on="order_ref", how="left", maintain_order="left")["fills"]
    bodies = json_rows(every).str.strip_suffix("}") + ',"fills":[' + of_each.fill_null("") + "]}"
    return every.select("order_ref", bodies.alias("body"))


def description(strategy: Strategy, now: datetime) -> dict[str, Any]:
    """What a strategy is, as people ask for it."""
    model = {"model": strategy.model, "horizon": strategy.horizon} if isinstance(strategy, ModelStrategy) else {}
    members = {"members": dict(strategy.shares)} if isinstance(strategy, PortfolioStrategy) else {}
    return {
        "name": strategy.name,
        "dataset": strategy.dataset,
        "interval": strategy.interval,
        "symbols": list(strategy.symbols),
        "rule": strategy.rule,
        **model,
        **members,
        "broker": strategy.broker,
        "settings": asdict(strategy.settings),
        "published_at": iso(micros(now)),
    }
