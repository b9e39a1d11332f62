"""What is put into the hot store: the lake's rows, what changed as revisions, and nothing newer is lost."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import orjson
import polars as pl
import pytest

from quantlytic_assets.resources import make_resources
from quantlytic_assets.services.published_strategies import publish_strategy
from quantlytic_assets.services.publishing import publish_dataset
from quantlytic_assets.services.rebuilding import publish_everything
from quantlytic_assets.serving.hot_store import HotStore
from quantlytic_assets.serving.rows import Block, micros, row
from quantlytic_assets.tables.pages import LakeRows
from quantlytic_assets.universe.loading import load_universe
from quantlytic_tests.api.desk import UNIVERSE, Desk, grid, make_desk, settings_in, walk

DAY = date(2026, 1, 6)
KIND = "bars/1m"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return make_desk(tmp_path, minutes=3)


def block(
    desk: Desk, symbol: str = "ETH-USD", day: date = DAY, kind: str = KIND, dataset: str = "crypto_1m"
) -> Block | None:
    with desk.resources.hot.read() as store:
        return store.block(dataset, kind, symbol, day)


def publish(
    desk: Desk, dataset: str = "crypto_1m", since: date = DAY, before: date = DAY + timedelta(days=1), now=None
):
    declared = load_universe(desk.chosen.universe).datasets[dataset]
    return publish_dataset(LakeRows(desk.resources.lake), desk.resources.hot, declared, since, before, now)


def journal(hot: HotStore) -> list[tuple[tuple[str, ...], dict]]:
    with hot.read() as store:
        return [(one.channel, orjson.loads(one.body)) for one in store.journal(0)]


def test_what_is_published_again_is_not_written_again(desk: Desk):
    before = block(desk)
    done = publish(desk)
    assert done.read == 2 * 1440 - 10 and done.updated.rows == done.updated.blocks == done.updated.told == 0
    assert block(desk) == before and journal(desk.resources.hot) == []


def test_a_row_that_was_served_and_is_another_now_is_told_once(desk: Desk):
    bars = desk.bars["crypto_1m"]
    time = datetime(2026, 1, 6, 12, tzinfo=UTC)
    mine = (pl.col("symbol") == "ETH-USD") & (pl.col("open_time") == time)
    corrected = bars.with_columns(pl.when(mine).then(pl.col("close") * 1.00005).otherwise("close").alias("close"))
    gone = (pl.col("symbol") == "ETH-USD") & (pl.col("open_time") == time + timedelta(minutes=5))
    desk.fill("crypto_1m", corrected.filter(~gone))
    assert publish(desk).updated.told == 2
    (channel, told), (_, deleted) = journal(desk.resources.hot)
    assert channel == ("bars", "crypto_1m", "1m", "ETH-USD")
    expected = corrected.filter(mine).row(0, named=True)
    assert (told["t"], told["c"], told["revision"], told["final"]) == (
        "2026-01-06T12:00:00Z",
        expected["close"],
        1,
        True,
    )
    assert deleted == {"t": "2026-01-06T12:05:00Z", "deleted": True, "revision": 1, "final": True}
    assert publish(desk).updated.told == 0
    # Back again: two more revisions.
    desk.fill("crypto_1m", bars)
    publish(desk)
    assert [(told["t"][11:16], told["revision"]) for _, told in journal(desk.resources.hot)[2:]] == [
        ("12:00", 2),
        ("12:05", 2),
    ]


def test_history_is_not_told_and_news_are(desk: Desk):
    times = grid("crypto_1m", date(2026, 1, 5), date(2026, 1, 8))
    desk.fill("crypto_1m", pl.concat([walk(times, "crypto_1m", symbol, 3) for symbol in ("BTC-USD", "ETH-USD")]))
    publish(desk, since=date(2026, 1, 8), before=date(2026, 1, 9), now=datetime(2026, 3, 1, tzinfo=UTC))
    assert block(desk, day=date(2026, 1, 8)).count == 1440 and journal(desk.resources.hot) == []
    times = grid("crypto_1m", date(2026, 1, 9), date(2026, 1, 9)).head(3)
    more = pl.concat([desk.bars["crypto_1m"], walk(times, "crypto_1m", "ETH-USD", 3)])
    desk.fill("crypto_1m", more)
    publish(desk, since=date(2026, 1, 9), before=date(2026, 1, 10), now=datetime(2026, 1, 9, 0, 5, tzinfo=UTC))
    assert [(told["t"][11:16], told["revision"]) for _, told in journal(desk.resources.hot)] == [
        ("00:00", 0), ("00:01", 0), ("00:02", 0),
    ]  # fmt: skip


def test_what_the_live_path_knows_better_stays(desk: Desk):
    hot, now = desk.resources.hot, datetime(2026, 1, 8, 0, 3, tzinfo=UTC)
    day = date(2026, 1, 8)
    start = micros("2026-01-08T00:00:00Z")
    with hot.write() as store:
        rows = [
            (start + minute * 60_000_000, row(start + minute * 60_000_000, {"c": 1.0 + minute})) for minute in range(3)
        ]
        store.add_rows("crypto_1m", KIND, "ETH-USD", day, rows)
        newest = {"t": "2026-01-08T00:02:59Z", "p": 3.5, "s": 1.0, "source": "live"}
        store.put_latest("crypto_1m", "ETH-USD", orjson.dumps(newest))
        store.put_latest("crypto_1m", "BTC-USD", orjson.dumps({**newest, "t": "2026-01-05T00:00:00Z"}))
    first = walk(grid("crypto_1m", day, day).head(1), "crypto_1m", "ETH-USD", 9)
    desk.fill("crypto_1m", pl.concat([desk.bars["crypto_1m"], first]))
    publish(desk, since=day, before=day + timedelta(days=1), now=now)
    publish(desk, now=now)
    closes = [orjson.loads(text)["c"] for _, text in block(desk, day=day)]
    # The first minute is the lake's now, the later ones are still the live path's.
    assert closes == [first["close"][0], 2.0, 3.0]
    with hot.read() as store:
        assert orjson.loads(store.latest("crypto_1m", "ETH-USD")) == newest
        assert orjson.loads(store.latest("crypto_1m", "BTC-USD"))["source"] == "lake"


def test_sessions_leave_the_hot_store_and_not_the_lake(tmp_path: Path):
    universe = {**UNIVERSE, "datasets": {**UNIVERSE["datasets"]}}
    universe["datasets"]["crypto_1m"] = {**universe["datasets"]["crypto_1m"], "keep_hot": "2d"}
    desk = Desk(make_resources(settings_in(tmp_path, universe)))
    times = grid("crypto_1m", date(2026, 1, 5), date(2026, 1, 8))
    desk.fill("crypto_1m", walk(times, "crypto_1m", "ETH-USD", 1))
    now = datetime(2026, 1, 8, 12, tzinfo=UTC)
    publish(desk, since=date(2026, 1, 5), before=date(2026, 1, 9), now=now)
    with desk.resources.hot.read() as store:
        assert [day.day for day, _ in store.blocks("crypto_1m", KIND, "ETH-USD")] == [6, 7, 8]
    publish(desk, since=date(2026, 1, 8), before=date(2026, 1, 9), now=now + timedelta(days=1))
    with desk.resources.hot.read() as store:
        assert [day.day for day, _ in store.blocks("crypto_1m", KIND, "ETH-USD")] == [7, 8]
        assert [name for (name,), _ in store.facts("coverage", "crypto_1m", "ETH-USD")] == ["2026-01-07", "2026-01-08"]


def test_a_later_split_changes_older_adjusted_bars_alone(desk: Desk):
    month = date(2020, 1, 1)
    desk.adjust()
    desk.publish()

    def of(kind: str, symbol: str = "AAPL") -> Block | None:
        return block(desk, symbol, month, kind, "stocks_1d")

    raw = of("bars/1d")
    assert of("bars/1d/split") is of("bars/1d/all") is None
    desk.act("stocks_1d", "AAPL", date(2021, 6, 1), "split", 2.0)
    # A publication of another month finds it.
    publish(desk, "stocks_1d", date(2021, 12, 1), date(2022, 1, 1))
    closes = [orjson.loads(text)["c"] for _, text in of("bars/1d/split")]
    assert closes == [orjson.loads(text)["c"] / 2 for _, text in raw]
    assert of("bars/1d") == raw and of("bars/1d/split", "MSFT") is None
    assert block(desk, "AAPL", date(2021, 7, 1), "bars/1d/split", "stocks_1d") is None
    desk.resources.lake.replace([("clean.corporate_actions", "true", [], pl.DataFrame())])
    publish(desk, "stocks_1d", date(2021, 12, 1), date(2022, 1, 1))
    assert of("bars/1d/split") is None


def test_a_dataset_that_was_never_published_is_published_whole(tmp_path: Path):
    desk = make_desk(tmp_path, minutes=3, published=False)
    publish(desk)
    assert [block(desk, day=date(2026, 1, day)).count for day in (5, 6, 7)] == [1440] * 3


def test_an_account_is_published_with_its_orders_and_only_what_is_new_is_read(desk: Desk):
    from quantlytic_assets.schemas.trading import EQUITY, FILLS, ORDERS, POSITIONS, SIGNALS

    def rows(table, *given):
        every = [{**dict.fromkeys(table.polars.names()), "strategy": "cross_1d", **one} for one in given]
        return pl.DataFrame(every, schema=table.polars)

    time, session = datetime(2020, 1, 3, 14, 30, tzinfo=UTC), date(2020, 1, 3)
    signal = {"symbol": "AAPL", "session": session, "open_time": time, "available_at": time + timedelta(hours=6),
              "signal": "buy", "strength": 1.0, "target": 1.0, "reason": 'sma(5) 1.0 is "above", sma(10)'}  # fmt: skip
    order = {"session": session, "symbol": "AAPL", "order_ref": "cross_1d:AAPL:x:entry", "side": "buy", "quantity": 3.0,
             "decision_time": time, "status": "filled", "created_at": time}  # fmt: skip
    filled = {"fill_session": session, "fill_time": time, "price": 0.1 + 0.2, "commission": 1.0, "slippage": 0.0}
    fill = {name: order[name] for name in ("session", "symbol", "order_ref", "side", "quantity")} | filled
    account = {"session": session, "equity": 100.0, "cash": 99.0, "gross_exposure": 1.0, "costs_to_date": 1.0}
    held = {
        "session": session,
        "symbol": "AAPL",
        "quantity": 3.0,
        "average_price": 0.3,
        "close": 0.4,
        "market_value": 1.2,
    }
    tables = ((SIGNALS, signal), (ORDERS, order), (FILLS, fill), (EQUITY, account), (POSITIONS, held))
    desk.resources.lake.replace([(table.name, "false", [], rows(table, one)) for table, one in tables])
    universe = load_universe(desk.chosen.universe)
    strategy, dataset = universe.strategies["cross_1d"], universe.datasets["stocks_1d"]
    lake, hot = LakeRows(desk.resources.lake), desk.resources.hot
    assert publish_strategy(lake, hot, dataset, strategy).read == 1
    assert publish_strategy(lake, hot, dataset, strategy).read == 0
    said = [orjson.loads(text) for _, text in block(desk, "AAPL", date(2020, 1, 1), "signals/cross_1d", "stocks_1d")]
    assert [(one["signal"], one["reason"]) for one in said] == [("buy", signal["reason"])]
    with hot.read() as store:
        told = orjson.loads(store.fact("orders", "cross_1d", order["order_ref"]))
        assert told["status"] == "filled" and told["fills"][0]["price"] == 0.1 + 0.2
        assert orjson.loads(store.fact("positions", "cross_1d"))[0]["quantity"] == 3.0
        assert orjson.loads(store.fact("curve", "cross_1d")) == [["2020-01-03", 100.0]]
    later = {
        **signal,
        "open_time": time + timedelta(days=3),
        "available_at": time + timedelta(days=4),
        "session": date(2020, 1, 6),
    }
    desk.resources.lake.replace([(SIGNALS.name, "false", [], rows(SIGNALS, later))])
    # Its whole partition, a month, is written again.
    assert publish_strategy(lake, hot, dataset, strategy).read == 2
    desk.resources.lake.replace([(ORDERS.name, "true", [], rows(ORDERS))])
    publish_strategy(lake, hot, dataset, strategy)
    with hot.read() as store:
        assert list(store.facts("orders", "cross_1d")) == []


def test_a_store_of_an_empty_lake_is_whole(tmp_path: Path):
    resources = make_resources(settings_in(tmp_path))
    universe = load_universe(resources.settings.universe)
    publish_everything(resources, universe, universe.datasets.values())
    with resources.hot.read() as store:
        assert all(store.fact("dataset", name) for name in universe.datasets)
