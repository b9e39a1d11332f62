"""An order of an account walked back: events → decision → signal → prediction and model → features → bars → vendor.

Orders are those on record in the state database (`storage.accounts`). What the lake says beside them is what its tables
hold now; a row that was written again after the order says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from difflib import get_close_matches
from math import isclose
from typing import TYPE_CHECKING, Any

import polars as pl

from quantlytic_assets.learning.features import resolve_features
from quantlytic_assets.schemas.features import BARS, INDICATORS
from quantlytic_assets.schemas.ml import PREDICTIONS
from quantlytic_assets.schemas.trading import EVENTS, SIGNALS
from quantlytic_assets.services.halts import who_halted
from quantlytic_assets.services.provenance import Link, bar_links, row_id, snapshots
from quantlytic_assets.services.signals import NoSignals, bound_rule, read_columns
from quantlytic_assets.strategies.spec import BASE_COLUMNS
from quantlytic_assets.tables.features import feature_tables, rows_at, session_bars
from quantlytic_assets.tables.predictions import predictions
from quantlytic_assets.tables.select import Condition, equal
from quantlytic_assets.tables.signals import session_signals
from quantlytic_assets.tables.whole_rows import feature_columns
from quantlytic_assets.trading.account_tables import engine_events
from quantlytic_assets.trading.engine import projections
from quantlytic_assets.trading.reasons import in_words
from quantlytic_assets.universe.models import ModelStrategy, PortfolioStrategy

if TYPE_CHECKING:
    from quantlytic_assets.resources import Resources
    from quantlytic_assets.universe.models import Dataset, Strategy

_DAY = timedelta(days=1)
_NEAREST = 3
# What an event says of an order beside its kind.
_TOLD = ("side", "type", "quantity", "price", "stop", "commission", "slippage", "reason", "position", "cash",
         "ambiguous")  # fmt: skip
_ORDER = ("strategy", "symbol", "side", "quantity", "type", "price", "stop", "leg", "status", "filled",
          "average_price", "commission", "slippage", "reason", "session", "decision_time")  # fmt: skip


class UnknownOrder(LookupError):
    """No account has an order of this id; the message says which ids are near and how they are listed."""


@dataclass(frozen=True)
class OrderExplanation:
    """An order (`projections.orders`) and the links that lead from it back to what vendors gave, newest first."""

    order_id: str
    order: Mapping[str, Any]
    links: list[Link] = field(default_factory=list)

    def told(self) -> dict[str, Any]:
        """One object for programs: the order's members, and its links with their facts."""
        links = [
            {"link": one.kind, "id": one.id, "time": one.time, **one.facts, **({"note": one.note} if one.note else {})}
            for one in self.links
        ]
        return {"order_id": self.order_id, **self.order, "links": links}


@dataclass(frozen=True)
class Reads:
    """What a strategy decides by, in words, the columns of features.indicators it reads, and how many bars back."""

    decides_by: str
    columns: tuple[str, ...]
    bars: int


def explain_order(
    resources: Resources, dataset: Dataset | None, strategy: Strategy | None, order_id: str
) -> OrderExplanation:
    """All that is on record of an order, and what it rests on.

    strategy and its dataset: None where the universe has no such strategy any more; then only what the account has on
    record is told. Raises `UnknownOrder`.
    """
    rows = resources.accounts.order(order_id)
    if rows.is_empty():
        raise UnknownOrder(_unknown(resources, order_id))
    life = engine_events(rows)
    order = projections.orders(life).row(0, named=True)
    links = _events_of(rows, life)
    decided = order
    if "." in order["leg"]:
        # An exit belongs to the order that opened the position, and so do the decision and what that was made of.
        parent_id = order_id.rsplit(":", 1)[0] + ":" + order["leg"].partition(".")[0]
        parent_rows = resources.accounts.order(parent_id)
        links += _parent(parent_id, parent_rows)
        if len(parent_rows):
            decided = projections.orders(engine_events(parent_rows)).row(0, named=True)
    links += _decision(resources, decided)
    if dataset is None or strategy is None:
        gone = f"the universe has no strategy {order['strategy']} any more, so what it read is not known"
        links.append(Link("signal", f"{SIGNALS.name} {order['strategy']}", None, note=gone))
        return OrderExplanation(order_id, _said(order, _ORDER), links)
    bars = session_bars(resources.lake, dataset.name, strategy.interval, decided["session"], strategy.symbols)
    bar = deciding_bar(bars, dataset, decided["symbol"], decided["decision_time"])
    if bar is None:
        missing = (
            f"features.bars has no bar of {decided['symbol']} that this was decided on; "
            f"run: quantlytic backfill {dataset.name} --from {decided['session']} --to {decided['session']}"
        )
        links.append(Link("bar", row_id(BARS, dataset.name, decided["symbol"], strategy.interval), None, note=missing))
    else:
        recorded = rows["recorded_at"][0]
        links += _inputs(resources, strategy, bar, recorded)
        links += bar_links(resources, dataset, bar, "decided on")
    links += _filled_at(resources, dataset, strategy, life, bar)
    return OrderExplanation(order_id, _said(order, _ORDER), links)


def reads(strategy: Strategy) -> Reads:
    """What a strategy decides by and reads, its model's features among it."""
    model = strategy if isinstance(strategy, ModelStrategy) else None
    learned = resolve_features(model.features) if model else ()
    try:
        rule = bound_rule(strategy)
    except NoSignals:
        return Reads(f"bot {strategy.rule_name}", (), 0)
    own = (name for name in read_columns(strategy, rule) if name not in BASE_COLUMNS)
    said = f"{model.model} read by {rule}" if model else str(rule)
    return Reads(said, tuple(dict.fromkeys([*own, *learned])), max(rule.warmup, model.warm_up_bars if model else 0))


def deciding_bar(bars: pl.DataFrame, dataset: Dataset, symbol: str, decided: datetime) -> dict[str, Any] | None:
    """The row of a symbol among a session's features.bars that was decided on at a time; None where there is none.

    bars: of all symbols of the strategy. Bars that open together are decided on when the last of them is available.
    """
    together = usable(bars, dataset).filter(pl.col("available_at").max().over("open_time") == decided, symbol=symbol)
    return together.row(0, named=True) if len(together) else None


def usable(bars: pl.DataFrame, dataset: Dataset) -> pl.DataFrame:
    """The rows of features.bars that may be decided on; see `tables.features.usable_bars`."""
    priced = pl.col("close").is_not_null()
    return bars.filter(priced if dataset.incomplete_bars == "keep" else priced & pl.col("complete"))


def _unknown(resources: Resources, order_id: str) -> str:
    strategy = order_id.partition(":")[0]
    listed = f"quantlytic sql \"SELECT order_ref FROM trading.orders WHERE strategy = '{strategy}' ORDER BY session\""
    known = resources.accounts.order_ids(strategy)
    if not known:
        return (
            f"no order {order_id!r}: trading.events has no order of {strategy!r}. An order's id is its order_ref: "
            'quantlytic sql "SELECT DISTINCT strategy, client_order_id FROM trading.events"'
        )
    near = get_close_matches(order_id, known, _NEAREST, 0.0)
    return f"no order {order_id!r}; the nearest of {strategy} are {', '.join(near)}. All of them: {listed}"


def _events_of(rows: pl.DataFrame, life: pl.DataFrame) -> list[Link]:
    """What happened to an order, the last first."""
    recorded = dict(rows.select("seq", "recorded_at").iter_rows())
    return [
        Link(
            "event",
            row_id(EVENTS, event["strategy"], event["seq"]),
            event["event_time"],
            {"event": event["kind"], **_said(event, _TOLD), **_left(event), "recorded_at": recorded[event["seq"]]},
            in_words(event["reason"]),
        )
        for event in life.reverse().iter_rows(named=True)
    ]


def _said(row: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """What a row says in these columns: nulls, and what is not ambiguous, are left out."""
    return {name: row[name] for name in names if row[name] is not None and row[name] is not False}


def _left(event: Mapping[str, Any]) -> dict[str, Any]:
    """What a fill left of the order to be filled, in shares."""
    return {"left": event["value"]} if event["kind"] == "fill" else {}


def _parent(parent_id: str, rows: pl.DataFrame) -> list[Link]:
    if rows.is_empty():
        return []
    order = projections.orders(engine_events(rows)).row(0, named=True)
    note = "its fill opened the position that this order was to close"
    return [Link("order", parent_id, order["sent_at"], _said(order, _ORDER), note)]


def _decision(resources: Resources, order: Mapping[str, Any]) -> list[Link]:
    """The decision that stood when an order was sent, and what limited or halted all of the account then."""
    strategy, time = order["strategy"], order["decision_time"]
    rows = resources.accounts.events(strategy, before=order["session"] + _DAY)
    told = engine_events(rows).filter(pl.col("event_time") <= time)
    recorded = dict(rows.select("seq", "recorded_at").iter_rows())
    if (order["leg"] or "").startswith("own_"):
        return [Link("decision", order["client_order_id"], time, {"asked": "by the bot"})]

    def link(event: Mapping[str, Any], facts: Mapping[str, Any], note: str | None) -> Link:
        key = row_id(EVENTS, strategy, event["seq"])
        return Link("decision", key, event["event_time"], {**facts, "recorded_at": recorded[event["seq"]]}, note)

    links = []
    decisions = told.filter(kind="decision")
    scaled = decisions.filter(pl.col("symbol").is_null(), event_time=time)
    for event in scaled.iter_rows(named=True):
        note = f"all targets of this time were made smaller: {in_words(event['reason'])}"
        links.append(link(event, {"scale": event["value"], "reason": event["reason"]}, note))
    own = decisions.filter(symbol=order["symbol"])
    if len(own):
        event = own.row(-1, named=True)
        again = None if event["event_time"] == time else "decided then; the same target stood when the order was sent"
        words = "; ".join(one for one in (in_words(event["reason"]), again) if one)
        facts = {"weight": event["value"], **_said(event, ("reason",)), "symbol": event["symbol"]}
        links.append(link(event, facts, words or None))
    halts = told.filter(pl.col("kind").is_in(["halt", "resume"]))
    if len(halts) and halts["kind"][-1] == "halt":
        event = halts.row(-1, named=True)
        asked = who_halted(resources.accounts, strategy, event["event_time"])
        words = "; ".join(one for one in (in_words(event["reason"]), asked) if one)
        links.append(link(event, {"halt": event["reason"]}, f"the account was halted: {words}"))
    return links


def _inputs(resources: Resources, strategy: Strategy, bar: Mapping[str, Any], recorded: datetime) -> list[Link]:
    """Signal, prediction, model and features of the bar that was decided on; of a portfolio its members' too."""
    symbol, session = bar["symbol"], bar["session"]
    mine = (equal("strategy", strategy.name), equal("symbol", symbol))
    at = Condition("session = ? AND open_time = ?", (session, bar["open_time"]))
    read = reads(strategy)
    found = signal_at(resources, strategy.name, symbol, session, bar["open_time"])
    if found is None:
        run = f"quantlytic backfill {strategy.name} --from {session} --to {session}"
        note = f"no signal is kept of the bar; {run} makes it" if read.columns else "a bot has no signals"
        links = [Link("signal", row_id(SIGNALS, strategy.name, symbol, bar["open_time"]), None, {}, note)]
    else:
        made = snapshots(resources, SIGNALS, *mine, at)
        facts = {"signal": found["signal"], "strength": found["strength"], "decides_by": read.decides_by, **made}
        note = "; ".join(one for one in (found["reason"], _rewritten(made, recorded)) if one)
        key = row_id(SIGNALS, strategy.name, symbol, bar["open_time"])
        links = [Link("signal", key, found["available_at"], facts, note)]
    predicted = _prediction(resources, strategy.name, bar, (*mine, at), recorded)
    links += predicted
    links += _models(resources, strategy, bar, predicted)
    links += _features(resources, strategy, read, bar, recorded)
    if isinstance(strategy, PortfolioStrategy):
        for member in strategy.members:
            links += _inputs(resources, member, bar, recorded)
    return links


def signal_at(
    resources: Resources, strategy: str, symbol: str, session: date, open_time: datetime
) -> dict[str, Any] | None:
    """The row of trading.signals of a bar; None where there is none."""
    rows = session_signals(resources.lake, strategy, session).filter(symbol=symbol, open_time=open_time)
    return rows.row(0, named=True) if len(rows) else None


def _prediction(
    resources: Resources,
    strategy: str,
    bar: Mapping[str, Any],
    conditions: tuple[Condition, ...],
    recorded: datetime,
) -> list[Link]:
    names = PREDICTIONS.polars.names()
    found = predictions(resources.lake, strategy, names, since=bar["session"], before=bar["session"] + _DAY)
    found = found.filter(symbol=bar["symbol"], open_time=bar["open_time"])
    if found.is_empty():
        return []
    row = found.row(0, named=True)
    made = snapshots(resources, PREDICTIONS, *conditions)
    facts = {name: row[name] for name in ("score", "prediction", "model_version", "trained_through")} | made
    key = row_id(PREDICTIONS, strategy, bar["symbol"], bar["open_time"])
    return [Link("prediction", key, row["available_at"], facts, _rewritten(made, recorded))]


def _models(resources: Resources, strategy: Strategy, bar: Mapping[str, Any], predicted: list[Link]) -> list[Link]:
    """The model that had predicted the session when its orders were decided.

    A portfolio's member need not have an account of its own: of that it is the model of the prediction.
    """
    if not isinstance(strategy, ModelStrategy):
        return []
    session = bar["session"]
    traded = resources.accounts.sessions(strategy.name, session, session + _DAY)["model_version"].drop_nulls().to_list()
    versions = traded or [link.facts["model_version"] for link in predicted]
    return [_model(resources, strategy.name, version) for version in versions]


def _model(resources: Resources, strategy: str, version: str) -> Link:
    """What the registry knows of a model version."""
    key = f"{strategy} version {version}"
    known = resources.models.described(strategy, version) if resources.models.exists() else None
    if known is None:
        return Link("model", key, None, {}, "the registry has no such version: it was deleted there")
    tags = {name.removeprefix("quantlytic."): value for name, value in known["tags"].items()}
    if "features" in tags:
        tags["features"] = json.loads(tags["features"])
    figures = {
        f"training_{name}": int(known["metrics"][name]) for name in ("rows", "sessions") if name in known["metrics"]
    }
    facts = {
        "run_id": known["run_id"],
        "aliases": known["aliases"],
        **figures,
        **tags,
        "training_rows_digest": known["inputs"],
    }
    return Link("model", key, known["created_at"], facts)


def _features(
    resources: Resources, strategy: Strategy, read: Reads, bar: Mapping[str, Any], recorded: datetime
) -> list[Link]:
    """The values of the features that were read at a bar, as the lake has them now."""
    columns = [name for name in read.columns if name in feature_columns(resources.lake)]
    if not columns:
        return []
    lake, dataset, symbol, session = resources.lake, strategy.dataset, bar["symbol"], bar["session"]
    found = rows_at(lake, dataset, strategy.interval, session, bar["open_time"], ["available_at", *columns])
    found = found.filter(symbol=symbol)
    key = row_id(INDICATORS, dataset, symbol, strategy.interval, bar["open_time"])
    if found.is_empty():
        return [Link("features", key, None, {}, f"no row is kept of it; run: quantlytic backfill {dataset}")]
    row = found.row(0, named=True)
    own = (equal("dataset", dataset), equal("symbol", symbol), equal("interval", strategy.interval))
    at = Condition("session = ? AND open_time = ?", (session, bar["open_time"]))
    made = [snapshots(resources, table, *own, at) for table in feature_tables(lake, columns)]
    newest = max(filter(None, made), key=lambda one: one["snapshot"], default={})
    facts = {"values": {name: row[name] for name in columns}, "bars_before": read.bars, **newest}
    return [Link("features", key, row["available_at"], facts, _rewritten(newest, recorded))]


def _rewritten(made: Mapping[str, Any], recorded: datetime) -> str | None:
    """What is said of a row that was written after the order was recorded."""
    written = made.get("written_at")
    if written is None or written <= recorded:
        return None
    return f"written after the order was recorded ({recorded:%Y-%m-%d %H:%M:%S}), which may have rested on another row"


def _filled_at(
    resources: Resources,
    dataset: Dataset,
    strategy: Strategy,
    life: pl.DataFrame,
    decided_on: Mapping[str, Any] | None,
) -> list[Link]:
    """The bars at which an order was filled, each with where it is from."""
    links: list[Link] = []
    seen = {decided_on["open_time"]} if decided_on else set()
    for fill in projections.fills(life).iter_rows(named=True):
        bars = session_bars(resources.lake, dataset.name, strategy.interval, fill["session"], [fill["symbol"]])
        # A fill at the open is told at the open, one within a bar or at its end at its close, where the next may open.
        slipped = fill["slippage"] / fill["quantity"] * (1 if fill["side"] == "buy" else -1)
        opened = bars.filter(open_time=fill["event_time"])
        closed = bars.filter(close_time=fill["event_time"])
        at_open = len(opened) > 0 and isclose(opened["open"][0] or 0.0, fill["price"] - slipped, rel_tol=1e-9)
        for row in (opened if at_open or closed.is_empty() else closed).iter_rows(named=True):
            if row["open_time"] not in seen:
                seen.add(row["open_time"])
                links += bar_links(resources, dataset, row, "filled at")
    return links
