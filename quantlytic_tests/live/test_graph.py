"""The live path beside the graph: from the same bars, one by one or in batches, the same bars, features and signals."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import orjson
import polars as pl
import pytest

from quantlytic_assets.live.process import LiveProcess
from quantlytic_assets.market_data.stream.messages import micros
from quantlytic_assets.resources import Resources, make_resources
from quantlytic_assets.schemas.features import FAMILIES
from quantlytic_assets.storage.bus import bars_topic, made_bars_topic, signals_topic
from quantlytic_assets.universe.loading import load_universe
from quantlytic_tests.end_to_end.installations import Installed
from quantlytic_tests.end_to_end.universes import CRYPTO_1M
from quantlytic_tests.frames import utc
from quantlytic_tests.live.running import bars_on, live_process, look

DATASET = "crypto_1m"
PLUGIN = """
import polars as pl
from quantlytic_assets.plugins import rule

@rule(lookback=3)
def slope(features, *, least: float = 0.0):
    "Long while the close has risen over three bars by more than the symbols' average."
    change = (pl.col("close") / pl.col("close").shift(3) - 1).over("symbol", order_by="open_time")
    return pl.when(change > change.mean().over("open_time") + least).then(1.0).when(change.is_not_null()).then(0.0)
"""
UNIVERSE = {
    "datasets": {
        DATASET: {
            **copy.deepcopy(CRYPTO_1M),
            "last_session": "2025-05-11",
            "feature_intervals": ["5m", "1h"],
            "symbols": ["BTC-USD", "ETH-USD", "SOL-USD"],
            "features": ["core", "obv", "beta(60, BTC-USD)", "rank(ret_1)", "stoch"],
        }
    },
    "plugins": ["rules.py"],
    "strategies": {
        "cross_5m": {"dataset": DATASET, "interval": "5m", "rule": {"ma_cross": {"fast": 20, "slow": 50}}},
        "slope_5m": {"dataset": DATASET, "interval": "5m", "rule": "slope"},
        "rank_5m": {"dataset": DATASET, "interval": "5m", "rule": {"momentum_rotation": {"window": 20, "top": 1}}},
        "rsi_1h": {"dataset": DATASET, "interval": "1h", "rule": "rsi"},
    },
}
STRATEGIES = tuple(UNIVERSE["strategies"])


@pytest.fixture(scope="module")
def graph(tmp_path_factory) -> Iterator[Installed]:
    """What the asset graph makes of two days of three coins."""
    root: Path = tmp_path_factory.mktemp("graph")
    (root / "rules.py").write_text(PLUGIN)
    installed = Installed(root, UNIVERSE)
    installed.run("backfill", DATASET).expect(0)
    yield installed


def resources_of(graph: Installed, home: Path) -> Resources:
    """An installation of the same universe elsewhere."""
    return make_resources(graph.settings().model_copy(update={"home": home}))


def process(graph: Installed, resources: Resources) -> LiveProcess:
    return live_process(load_universe(graph.universe_path), DATASET, resources)


def block_rows(resources: Resources, kind: str, symbols: list[str]) -> pl.DataFrame:
    """All rows of a kind in the hot store, with their symbols."""
    found = []
    with resources.hot.read() as reader:
        for symbol in symbols:
            for _, block in reader.blocks(DATASET, kind, symbol):
                found += [{"symbol": symbol, **one} for one in orjson.loads(b"[" + block.body + b"]")]
    return pl.DataFrame(found, infer_schema_length=None)


def by_time(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.sort("symbol", "open_time")


def newest(rows: pl.DataFrame) -> pl.DataFrame:
    """Of each symbol and time what was said last."""
    return rows.sort("revision").unique(["symbol", "open_time"], keep="last")


def test_signals_bars_and_features_are_those_of_the_graph(graph, tmp_path):
    resources = resources_of(graph, tmp_path / "live")
    source = make_resources(graph.settings())
    records = source.bus.read(bars_topic(DATASET), 0, 0, source.bus.watermarks(bars_topic(DATASET))[0][1])
    drawn, at = random.Random(5), 0
    live = process(graph, resources)
    live.begin()
    # Vendors answer symbol by symbol; a feed brings minute by minute. The order decides nothing.
    order = sorted(range(len(records)), key=lambda i: (i % (len(records) // 3), i))
    bus = resources.bus
    while at < len(order):
        taken = order[at : at + drawn.choice([1, 40, 700])]
        bus.publish(
            bars_topic(DATASET), [records.values[i] for i in taken], [records.keys[i] for i in taken],
            orjson.loads(records.headers[0]),
        )  # fmt: skip
        while live.step(0):
            pass
        at += len(taken)
    # Prices are told now and then: the last of them too.
    while live._prices.waiting:
        live.step(0.02)
    symbols = ["BTC-USD", "ETH-USD", "SOL-USD"]

    for interval in ("1m", "5m", "1h"):
        table = "clean.bars" if interval == "1m" else "features.bars"
        where = "" if interval == "1m" else f"AND interval = '{interval}' AND complete"
        wanted = by_time(graph.rows(
            f"SELECT symbol, open_time, open, high, low, close, volume FROM lake.{table} "
            f"WHERE dataset = '{DATASET}' {where}"
        ))  # fmt: skip
        found = bars_on(bus, made_bars_topic(interval, DATASET))
        assert by_time(found.select(wanted.columns)).equals(wanted), interval
        assert found["revision"].max() == 0
        served = block_rows(resources, f"bars/{interval}", symbols)
        assert len(served) == len(wanted) and served["c"].sum() == pytest.approx(wanted["close"].sum())

    kinds: set[str] = set()
    for strategy in STRATEGIES:
        wanted = by_time(graph.rows(
            "SELECT symbol, open_time, available_at, signal, strength, target, reason FROM lake.trading.signals "
            f"WHERE strategy = '{strategy}'"
        ))  # fmt: skip
        last = newest(bars_on(bus, signals_topic(strategy)))
        assert len(wanted) > 100
        kinds |= {*wanted["signal"]}
        found = by_time(last.select(wanted.columns))
        assert found.drop("strength", "target").equals(wanted.drop("strength", "target")), strategy
        for name in ("strength", "target"):
            assert (found[name] - wanted[name]).abs().max() in (None, pytest.approx(0, abs=1e-9))
        served = block_rows(resources, f"signals/{strategy}", symbols)
        assert served.sort("symbol", "t")["signal"].equals(found["signal"])

    assert kinds == {"buy", "sell", "hold"}

    for interval in ("5m", "1h"):
        served = block_rows(resources, f"features/{interval}", symbols).sort("symbol", "t")
        wanted = by_time(graph.rows(
            f"SELECT * FROM lake.features.indicators WHERE dataset = '{DATASET}' AND interval = '{interval}' "
            "AND close IS NOT NULL"
        ))  # fmt: skip
        columns = [one for one in served.columns if one not in ("symbol", "t")]
        assert len(columns) > 18 and len(served) == len(wanted)
        for name in columns:
            both = (served[name].cast(pl.Float64), wanted[name])
            assert both[0].is_null().equals(both[1].is_null()), name
            off = ((both[0] - both[1]).abs() / pl.Series(both[1]).abs().clip(1e-3)).max()
            assert off is None or off < 1e-8, (interval, name, off)

    with resources.hot.read() as reader:
        latest = orjson.loads(reader.latest(DATASET, "BTC-USD"))
        health = orjson.loads(reader.fact("live", DATASET))
        entries = reader.journal(0, most=100_000)
    assert latest["source"] == "live" and latest["t"] == "2025-05-12T00:00:00Z"
    assert health["rejected"] == health["malformed"] == health["late"] == 0
    channels = {entry.channel[:2] for entry in entries}
    assert {("bars", DATASET), ("latest", DATASET), ("features", DATASET), ("signals", "cross_5m")} <= channels
    assert entries[-1].sequence == len(entries)


def test_what_the_lake_has_is_what_a_live_path_begins_with(graph, tmp_path):
    """On a copy of the graph's installation the last day comes again, and goes on where the lake ends."""
    installed = graph.copied_to(tmp_path, with_lake=True)
    (tmp_path / "rules.py").write_text(PLUGIN)
    resources = make_resources(installed.settings())
    whole = {one: bars_of_lake(installed, one) for one in STRATEGIES}
    day = date(2025, 5, 11)
    for table in ("clean.bars", "features.bars", "features.closes", *(f"features.{one}" for one in FAMILIES)):
        if not resources.lake.has_table(table):
            continue
        with resources.lake.transaction() as connection:
            connection.execute(f"DELETE FROM {table} WHERE session >= ?", [day])
    live = live_process(load_universe(installed.universe_path), DATASET, resources)
    live.begin()
    while live.step(0):
        pass
    for strategy in STRATEGIES:
        wanted = whole[strategy].filter(pl.col("session") == day)
        last = newest(bars_on(resources.bus, signals_topic(strategy)))
        found = by_time(last.select("symbol", "open_time", "signal", "reason"))
        assert found.equals(by_time(wanted.select(found.columns))), strategy


def test_features_and_signals_that_the_graph_has_otherwise_are_corrected_and_counted(graph, tmp_path):
    """The last day comes again; of the graph's rows of it, which are all alike, two are changed."""
    installed = graph.copied_to(tmp_path, with_lake=True)
    (tmp_path / "rules.py").write_text(PLUGIN)
    resources = make_resources(installed.settings())
    day = date(2025, 5, 11)
    rsi, signal = "2025-05-11 22:10:00+00", "2025-05-11 23:00:00+00"
    with resources.lake.transaction() as connection:
        for table in ("clean.bars", "features.bars"):
            connection.execute(f"DELETE FROM {table} WHERE session >= ?", [day])
        where = "symbol = 'BTC-USD' AND open_time = ?::TIMESTAMPTZ"
        connection.execute(f"UPDATE features.momentum SET rsi_14 = 77.5 WHERE \"interval\" = '5m' AND {where}", [rsi])
        connection.execute(
            "UPDATE trading.signals SET signal = 'sell', target = -0.25, reason = 'said by hand' "
            f"WHERE strategy = 'cross_5m' AND {where}", [signal],
        )  # fmt: skip
    told: list[str] = []
    live = live_process(load_universe(installed.universe_path), DATASET, resources, report=told.append)
    live.begin()
    while live.step(0):
        pass
    counts = live.counts.told

    looked = look(live)
    assert len(looked.features["5m"]) > 500 and len(looked.signals["cross_5m"]) > 500
    live.step(0)
    assert (counts()["features_differing"], counts()["signals_differing"]) == (0, 0)
    # Once more otherwise: the graph was not about to make them anew.
    assert [len(one) for one in look(live).features.values()] == [1, 0]
    live.step(0)
    assert (counts()["features_differing"], counts()["signals_differing"]) == (1, 0)
    look(live)
    live.step(0)
    assert (counts()["features_differing"], counts()["signals_differing"], counts()["differing"]) == (1, 1, 0)
    assert any("features of 1 bars of 5m were others, such as BTC-USD at 2025-05-11 22:10" in line for line in told)
    assert any("1 signals were others, such as cross_5m's of BTC-USD at 2025-05-11 23:00" in line for line in told)
    assert all(len(one) == 0 for one in (*look(live).features.values(), *live._watch._fresh.signals.values()))

    rows = block_rows(resources, "features/5m", ["BTC-USD"]).filter(pl.col("t") == "2025-05-11T22:10:00Z")
    assert rows["rsi_14"].to_list() == [77.5]
    found = bars_on(resources.bus, signals_topic("cross_5m")).filter(
        (pl.col("symbol") == "BTC-USD") & (pl.col("open_time") == utc("2025-05-11T23:00:00"))
    )
    assert found["revision"].to_list() == [0, 1] and found["trace"].to_list()[-1] == "graph"
    assert (found["signal"][-1], found["target"][-1], found["reason"][-1]) == ("sell", -0.25, "said by hand")
    # A process that goes on from here has them so.
    live = live_process(load_universe(installed.universe_path), DATASET, resources)
    live.begin()
    assert live._pipeline.deciders["5m"].said("cross_5m", "BTC-USD", micros(utc("2025-05-11T23:00:00")))[1] == 1


def bars_of_lake(installed: Installed, strategy: str) -> pl.DataFrame:
    return installed.rows(f"SELECT * FROM lake.trading.signals WHERE strategy = '{strategy}'")
