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
from quantlytic_assets.resources import Resources, make_resources
from quantlytic_assets.schemas.features import FAMILIES
from quantlytic_assets.storage.bus import bars_topic, made_bars_topic, signals_topic
from quantlytic_assets.universe.loading import load_universe
from quantlytic_tests.end_to_end.installations import Installed
from quantlytic_tests.end_to_end.universes import CRYPTO_1M
from quantlytic_tests.live.running import bars_on, live_process

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


def bars_of_lake(installed: Installed, strategy: str) -> pl.DataFrame:
    return installed.rows(f"SELECT * FROM lake.trading.signals WHERE strategy = '{strategy}'")
