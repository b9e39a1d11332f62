"""A day at a broker on the live path: orders go out as bars come, fills come back, and the graph has it afterwards."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta

import dagster as dg
import numpy as np
import polars as pl
import pytest

from quantlytic_assets.assets.paper_trades import paper_trades_asset
from quantlytic_assets.automation.conditions import follow_upstream
from quantlytic_assets.brokers.protocol import Traded
from quantlytic_assets.calendars.sessions import expected_bars
from quantlytic_assets.features.batch import compute
from quantlytic_assets.features.registry import Registry
from quantlytic_assets.live.process import LiveProcess
from quantlytic_assets.market_data.wire.records import BAR_HEADERS, encode_bars
from quantlytic_assets.schemas import features
from quantlytic_assets.services.broker_account import settle_reports
from quantlytic_assets.services.broker_desk import BrokerDesk
from quantlytic_assets.services.broker_trading import compared, trade_on
from quantlytic_assets.services.paper_account import trade
from quantlytic_assets.storage.accounts import Accounts
from quantlytic_assets.storage.broker_ledger import BrokerLedger
from quantlytic_assets.storage.bus import bars_topic
from quantlytic_assets.trading.account_tables import engine_events
from quantlytic_assets.trading.engine.settings import Exits
from quantlytic_assets.trading.engine.state import State
from quantlytic_assets.universe.models import Strategy, Universe
from quantlytic_tests.brokers.bench import APPLE, IBM, Bench
from quantlytic_tests.frames import make_bars, make_dataset
from quantlytic_tests.services.floor import SETTINGS
from quantlytic_tests.storage.places import opened

DAY = make_dataset().first_session
SYMBOLS = ("AAPL", "IBM")
DATASET = replace(
    make_dataset(symbols=SYMBOLS), name="minutes", features=("core", "sma(3)", "sma(8)"), last_session=None,
    vendors=("small",),
)  # fmt: skip
# Weights that prices have moved a little are left as they are.
BANDED = replace(SETTINGS, rebalance_band=0.1)
STRATEGY = Strategy(
    "day", "minutes", "5m", SYMBOLS, {"ma_cross": {"fast": 3, "slow": 8}}, BANDED, declared=DATASET.features,
    broker="ibkr",
)  # fmt: skip
PAIRS = [(DATASET, STRATEGY)]
COLUMNS = ("sma_3", "sma_8", "ret_1", "atr_14")
PATIENCE = 120.0


def bars_of_the_day(session=DAY) -> pl.DataFrame:
    """Bars of one session, of prices that go up and down several times; each opens where the last one closed."""
    times = expected_bars("XNYS", "5m", session, session + timedelta(days=1))["open_time"].to_list()
    frames = []
    for symbol, level, length in (("AAPL", 150.0, 21.0), ("IBM", 100.0, 17.0)):
        closes = np.round(level * (1 + 0.02 * np.sin(np.arange(len(times)) * 2 * np.pi / length)), 2)
        opens = [level, *closes[:-1]]
        frames.append(
            make_bars(symbol, times, "5m").with_columns(
                pl.Series("open", opens), pl.Series("close", closes), pl.Series("high", np.maximum(opens, closes)),
                pl.Series("low", np.minimum(opens, closes)),
            )
        )  # fmt: skip
    return pl.concat(frames).sort("open_time", "symbol")


class Day:
    """The session of a live path and of the thread that sends its orders, as `quantlytic live --trade` has them."""

    def __init__(self, resources, bench: Bench):
        self.strategy = STRATEGY
        self.resources, self.bench, self.book = resources, bench, bench.book
        self.lake = resources.lake
        self.accounts = Accounts(resources.state_url, clock=lambda: bench.now)
        self.ledger = BrokerLedger(resources.state_url, clock=lambda: bench.now)
        self.said: list[str] = []
        self.live: LiveProcess | None = None
        self._desk: BrokerDesk | None = None
        self._stop, self._thread = threading.Event(), threading.Thread()

    def begin(self) -> None:
        """Both begin, as a new process."""
        self.live = LiveProcess(
            DATASET, [self.strategy], self.resources.bus, self.resources.hot, self.lake, {}, self.said.append,
            books=self.accounts, trade=True, clock=lambda: self.bench.now.timestamp(), ledger=self.ledger,
        )  # fmt: skip
        self._desk = BrokerDesk(
            self.bench.broker(), self.ledger, lambda order: Traded(order.symbol, "XNYS"), clock=lambda: self.bench.now
        )
        self._desk.connect()
        self._stop.clear()
        self._thread = threading.Thread(
            target=trade_on,
            args=(
                self._desk,
                self.lake,
                self.accounts,
                self.ledger,
                [],
                [(DATASET, self.strategy)],
                self._stop,
                self.said.append,
            ),
            kwargs={"clock": lambda: self.bench.now},
        )
        self._thread.start()
        self.live.begin()

    def end(self) -> None:
        """Both end; orders go on working."""
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()
        self._desk.close()
        self.live = None

    def bar(self, rows: pl.DataFrame) -> None:
        """The bars of one time come over the bus, at whose closes the market goes on."""
        self.bench.now = rows["close_time"][0] + timedelta(seconds=1)
        for symbol, close in rows.select("symbol", "close").iter_rows():
            self.book.quote(symbol, close)
        topic = bars_topic(DATASET.name)
        self.resources.bus.publish(topic, encode_bars(rows), rows["symbol"].to_list(), BAR_HEADERS)
        while self.live.step(0):
            pass

    def reached(self, what: Callable[[], bool]) -> None:
        """Waits until something is so."""
        until = time.monotonic() + PATIENCE
        while not what():
            assert time.monotonic() < until, (self.said, self.ledger.orders("ibkr")[-3:])
            time.sleep(0.02)

    def settled(self) -> bool:
        """Whether all orders are over, and the account knows it."""
        return all(one.ended and one.told for one in self.ledger.orders("ibkr"))


@pytest.fixture
def day(tmp_path):
    bench = Bench(tmp_path, [APPLE, IBM])
    bench.book.cash, bench.book.margin = 100_000.0, 2.0
    with bench.serving(), opened("embedded", tmp_path / "place") as place:
        made = Day(place.resources, bench)
        yield made
        made._stop.set()


def test_a_day_at_a_broker_with_a_restart_in_the_middle(day, tmp_path):
    bars, book = bars_of_the_day(), day.book
    by_time = bars.partition_by("open_time", maintain_order=True)
    day.bench.now = by_time[0]["open_time"][0]
    day.begin()
    restarted = False
    for number, rows in enumerate(by_time):
        before = len(book.orders)
        # Somewhere after noon an order works that is filled while nobody is connected.
        book.auto_fill = restarted or number < 40
        day.bar(rows)
        orders = day.ledger.orders("ibkr")
        day.reached(lambda: len(book.orders) == len(orders))  # noqa: B023
        # What was decided on this bar is at the broker before the next one comes.
        close = rows["close_time"][0]
        assert {one.decision_time for one in orders[before:]} <= {close}
        if len(book.orders) > before and not book.auto_fill:
            day.reached(lambda: {one.status for one in day.ledger.orders("ibkr")[before:]} == {"working"})  # noqa: B023
            day.end()
            book.auto_fill = restarted = True
            for symbol, price in rows.select("symbol", "close").iter_rows():
                book.quote(symbol, price)
            day.begin()
        day.reached(day.settled)
    assert restarted and len(book.orders) >= 8
    day.bench.now = by_time[-1]["close_time"][0] + timedelta(minutes=5)
    book.close_market()
    day.end()

    # The ledger is the server's book.
    orders = day.ledger.orders("ibkr")
    fills = day.ledger.fills([one.client_order_id for one in orders])
    assert book.refs() == [one.client_order_id for one in orders] and len(set(book.refs())) == len(orders)
    assert [(one.execution_id, one.quantity, one.price) for one in fills] == [
        (one.id, one.quantity, one.price) for one in book.fills
    ]
    state = State.from_bytes(day.accounts.last("day").state)
    held = dict(zip(SYMBOLS, state.positions.tolist(), strict=True))
    assert {name: shares for name, shares in held.items() if shares} == book.held()
    assert state.cash == pytest.approx(book.cash)
    desk = BrokerDesk(
        day.bench.broker(), day.ledger, lambda order: Traded(order.symbol, "XNYS"), clock=lambda: day.bench.now
    )
    desk.connect()
    assert compared(desk, day.accounts, day.ledger, PAIRS, day.bench.now).differences == ()
    desk.close()

    # The graph has the same bars in the evening, and writes down what was done without doing anything.
    told = day.accounts.events("day")
    give(day.lake, bars)
    messages = len(book.received)
    materialized(day.resources, tmp_path)
    assert len(book.received) == messages and day.accounts.events("day").equals(told)
    wanted = day.lake.query("SELECT * FROM trading.events ORDER BY seq")
    assert wanted.select(told.columns).equals(told)
    filled = day.lake.query("SELECT symbol, side, quantity, price FROM trading.fills")
    assert sorted(filled.rows()) == sorted(
        (one.order.instrument.symbol, one.order.sent["action"].lower(), one.quantity, one.price) for one in book.fills
    )
    at_broker = day.lake.query("SELECT status, slippage FROM trading.broker_orders")
    assert set(at_broker["status"]) == {"filled"} and len(at_broker) == len(orders)

    # It is what the simulation makes of the same bars, for the broker's prices are those of the next opens.
    simulated = Accounts(f"sqlite:///{tmp_path / 'simulated.sqlite'}")
    alone = replace(STRATEGY, broker="simulated")
    trade(day.lake, simulated, DATASET, alone, DAY, DAY + timedelta(days=1), day.bench.now)
    same = ("kind", "symbol", "client_order_id", "side", "quantity", "price")
    for kind in ("order_accepted", "fill"):
        mine, theirs = (engine_events(one).filter(kind=kind).select(same) for one in (told, simulated.events("day")))
        assert len(mine) >= 8 and mine.rows() == theirs.rows()


def give(lake, bars: pl.DataFrame, session=DAY) -> None:
    """Put the bars of a session and their features where the graph has them."""
    made = compute(
        bars.with_columns(
            pl.lit("5m").alias("interval"), pl.lit(session).alias("session"),
            pl.col("close_time").alias("available_at"),
            pl.lit("minutes").alias("dataset"), pl.lit(True).alias("complete"),
            pl.lit(8, pl.Int32).alias("history_bars"), pl.col("symbol").alias("listing"), pl.lit(1.0).alias("shares"),
        ),
        Registry().features(["sma(3)", "sma(8)", "ret(1)", "atr(14)"]),
    )  # fmt: skip
    shown = [*features.INDICATORS.polars.names(), *COLUMNS]
    with lake.transaction() as connection:
        for table in (features.BARS, features.LABELS):
            connection.execute(f"CREATE TABLE {table.name} ({table.ddl})")
        more = ", ".join(f"{name} DOUBLE" for name in COLUMNS)
        connection.execute(f"CREATE TABLE features.indicators ({features.INDICATORS.ddl}, {more})")
    hours = made.group_by("session").agg(pl.col("open_time").min(), pl.col("close_time").max())
    lake.replace(
        [
            ("clean.sessions", "true", [], hours.with_columns(pl.lit("minutes").alias("dataset"))),
            (features.BARS.name, "true", [], made.select(features.BARS.polars.names())),
            ("features.indicators", "true", [], made.select(shown)),
        ]
    )


def materialized(resources, tmp_path) -> None:
    """The asset of the strategy's paper trades, made for the day."""
    universe = Universe(tmp_path / "universe.yaml", {DATASET.name: DATASET}, {"day": STRATEGY})
    common = {"automation_condition": follow_upstream(), "backfill_policy": dg.BackfillPolicy.multi_run(10)}
    asset = paper_trades_asset(DATASET, STRATEGY, common, universe)
    given = {"quantlytic": dg.ResourceDefinition.hardcoded_resource(resources)}
    with dg.DagsterInstance.ephemeral() as instance:
        assert dg.materialize([asset], resources=given, instance=instance, partition_key=DAY.isoformat()).success


def test_fills_that_are_taken_in_while_a_bar_is_decided_cost_no_decision(day, monkeypatch):
    bars = bars_of_the_day().partition_by("open_time", maintain_order=True)
    day.bench.now = bars[0]["open_time"][0]
    day.begin()
    day.book.auto_fill = False
    for number, rows in enumerate(bars):
        day.bar(rows)
        orders = day.ledger.orders("ibkr")
        if orders:
            break
    day.reached(lambda: {one.status for one in day.ledger.orders("ibkr")} == {"working"})
    day.end()
    # A process whose orders nobody sends or settles but this test.
    day.begin()
    day._stop.set()
    day._thread.join(60)
    for one in orders:
        day.book.fill(one.client_order_id, one.quantity, day.book.prices[one.symbol])
    day._desk.settle_down(5)
    requests, settling = day.accounts.requests, [True]

    def meanwhile(*arguments, **named):
        if settling.pop() if settling else False:
            static = np.ones((4, len(SYMBOLS)))
            assert settle_reports(day.accounts, day.ledger, STRATEGY, DATASET, static, day.bench.now) > 0
        return requests(*arguments, **named)

    monkeypatch.setattr(day.accounts, "requests", meanwhile)
    day.bar(bars[number + 1])
    assert not settling and day.accounts.last("day").through == bars[number + 1]["open_time"][0]
    assert engine_events(day.accounts.events("day")).filter(kind="fill").height == len(orders)


def test_exits_by_the_range_are_placed_while_the_graph_is_a_session_behind(day):
    day.strategy = replace(STRATEGY, settings=replace(BANDED, exits=Exits(atr_stop=2.0)))
    before = date(2025, 2, 28)
    give(day.lake, bars_of_the_day(before), before)
    bars = bars_of_the_day().partition_by("open_time", maintain_order=True)
    day.bench.now = bars[0]["open_time"][0]
    day.begin()
    for rows in bars:
        day.bar(rows)
        day.reached(lambda: all(one.exits or (one.ended and one.told) for one in day.ledger.orders("ibkr")))
        if day.book.held():
            break
    held = len(day.book.held())
    day.reached(lambda: sum(one.exits for one in day.ledger.orders("ibkr")) == held)
    day.end()
    newest = day.lake.query(
        "SELECT symbol, atr_14 FROM features.indicators QUALIFY open_time = max(open_time) OVER (PARTITION BY symbol)"
    )
    ranges = dict(newest.iter_rows())
    paid = {one.order.instrument.symbol: one.price for one in day.book.fills}
    stops = {one.symbol: one for one in day.ledger.orders("ibkr") if one.exits}
    assert {one.leg for one in stops.values()} == {"entry.stop"} and set(stops) == set(day.book.held())
    for symbol, stop in stops.items():
        assert stop.stop_price == pytest.approx(paid[symbol] - 2.0 * ranges[symbol])
