"""Alerts of the universe through the sensor: rows of the lake and of the hot store, restarts, recovery, cooldown."""

from __future__ import annotations

from datetime import date, timedelta

import dagster as dg
import polars as pl
import pytest

from quantlytic_assets.automation.alerts import alert_sensor
from quantlytic_assets.resources import make_resources
from quantlytic_assets.schemas.features import BARS
from quantlytic_assets.schemas.trading import EQUITY
from quantlytic_assets.serving.rows import micros, row
from quantlytic_assets.thresholds.condition import condition
from quantlytic_assets.universe.models import Threshold
from quantlytic_tests.frames import make_dataset, utc
from quantlytic_tests.receivers import Webhook
from quantlytic_tests.storage.places import make_settings

LIVE = make_dataset("24/7", "1m", first=date(2025, 3, 6), last=None, symbols=("A", "B"), name="live")
NOW = utc("2025-03-06T12:00")
MINUTE = timedelta(minutes=1)


@pytest.fixture
def webhook():
    with Webhook().serving() as open_one:
        yield open_one


@pytest.fixture
def resources(tmp_path, webhook):
    return make_resources(make_settings("embedded", tmp_path, notify=webhook.url))


@pytest.fixture
def instance(tmp_path):
    (tmp_path / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as made:
        yield made


def threshold(when: str, cooldown: timedelta = timedelta(0), **more) -> Threshold:
    return Threshold(condition(when), cooldown, **more)


def on_live(when: str, **more) -> Threshold:
    return threshold(when, dataset="live", symbols=("A", "B"), interval="1m", **more)


class Sensing:
    """The sensor with these alerts; `turn` is one of its ticks at a time."""

    def __init__(self, instance, resources, *alerts: Threshold):
        self.instance, self.resources, self.cursor, self.now = instance, resources, None, NOW
        self.sensor = alert_sensor([LIVE], [], alerts, clock=lambda: self.now)

    def turn(self, now=None) -> None:
        self.now = now or self.now
        with dg.build_sensor_context(
            self.instance, cursor=self.cursor, resources={"quantlytic": self.resources}
        ) as context:
            self.cursor = self.sensor.evaluate_tick(context).cursor


def put_hot(resources, time, symbol="A", close=1.0, **features) -> None:
    with resources.hot.write() as store:
        bar = row(micros(time), {"o": close, "h": close, "l": close, "c": close, "v": 1.0})
        store.add_rows("live", "bars/1m", symbol, time.date(), [(micros(time), bar)])
        if features:
            store.add_rows("live", "features/1m", symbol, time.date(), [(micros(time), row(micros(time), features))])


def put_lake(resources, *closes: float, until=NOW) -> None:
    """Minutes of A up to a time in features.bars."""
    times = [until - (len(closes) - n) * MINUTE for n in range(len(closes))]
    frame = pl.DataFrame(
        {
            "dataset": "live", "symbol": "A", "interval": "1m", "open_time": times, "close": closes, "open": closes,
            "high": closes, "low": closes, "volume": 1.0, "complete": True,
        }
    ).with_columns(
        pl.col("open_time").dt.date().alias("session"), (pl.col("open_time") + MINUTE).alias("close_time"),
        (pl.col("open_time") + MINUTE).alias("available_at"),
    )  # fmt: skip
    missing = [name for name in BARS.polars.names() if name not in frame.columns]
    frame = frame.with_columns(pl.lit(None).alias(name) for name in missing)
    frame = frame.select(pl.col(name).cast(kind) for name, kind in BARS.polars.items())
    with resources.lake.transaction() as connection:
        connection.execute(f"CREATE TABLE IF NOT EXISTS features.bars ({BARS.ddl})")
    resources.lake.replace([("features.bars", "true", [], frame)])


def test_a_condition_on_the_hot_store_is_told_once_whatever_is_restarted(instance, resources, webhook):
    sensing = Sensing(instance, resources, on_live("rsi_14 < 30"))
    put_hot(resources, NOW - 3 * MINUTE, rsi_14=50.0)
    sensing.turn()
    assert webhook.texts == []
    put_hot(resources, NOW - 2 * MINUTE, rsi_14=25.5)
    sensing.turn()
    assert webhook.texts == [("A: rsi_14 < 30", "rsi_14 is 25.5 at 2025-03-06 11:58 UTC (live, 1m).")]
    put_hot(resources, NOW - MINUTE, rsi_14=24.0)
    # Neither a daemon that begins anew, without its cursor, nor another process says it again.
    again = Sensing(instance, make_resources(resources.settings), on_live("rsi_14 < 30"))
    again.turn()
    assert len(webhook.texts) == 1
    put_hot(resources, NOW, rsi_14=41.0)
    again.turn()
    assert webhook.texts[1:] == [("A: rsi_14 < 30 is over", "rsi_14 is 41 at 2025-03-06 12:00 UTC (live, 1m).")]


def test_without_a_live_path_the_lake_is_enough(instance, resources, webhook):
    assert not (resources.settings.data / "hot" / "data.mdb").exists()
    sensing = Sensing(instance, resources, on_live("close crosses above 10"), on_live("close > 100"))
    put_lake(resources, 9.0, 9.5)
    sensing.turn()
    sensing.turn(NOW + 2 * MINUTE)
    assert webhook.texts == []
    put_lake(resources, 9.0, 9.5, 11.0, 120.0, until=NOW + 2 * MINUTE)
    sensing.turn()
    assert [title for title, _ in webhook.texts] == ["A: close crosses above 10", "A: close > 100"]


def test_crossings_between_two_turns_are_seen(instance, resources, webhook):
    sensing = Sensing(instance, resources, on_live("close crosses above 10"))
    put_hot(resources, NOW - 9 * MINUTE, close=9.0)
    sensing.turn()
    for back, close in ((8, 9.5), (7, 11.0), (6, 12.0)):
        put_hot(resources, NOW - back * MINUTE, close=close)
    sensing.turn()
    assert [title for title, _ in webhook.texts] == ["A: close crosses above 10"]
    assert "11:53" in webhook.texts[0][1]


def test_staleness_of_a_symbol_while_a_session_runs(instance, resources, webhook):
    sensing = Sensing(instance, resources, on_live("staleness > 5m"))
    put_hot(resources, NOW - 2 * MINUTE, "A")
    put_hot(resources, NOW - 20 * MINUTE, "B")
    sensing.turn()
    assert [title for title, _ in webhook.texts] == ["B: staleness > 5m"]
    assert "0:19:00" in webhook.texts[0][1]
    put_hot(resources, NOW, "B")
    sensing.turn(NOW + MINUTE)
    assert [title for title, _ in webhook.texts][1:] == ["B: staleness > 5m is over"]


def test_the_drawdown_of_an_account(instance, resources, webhook):
    sensing = Sensing(instance, resources, threshold("drawdown(cross) > 10%"))

    def put(*equity: float) -> None:
        frame = pl.DataFrame(
            {"strategy": "cross", "session": [date(2025, 3, 1 + n) for n in range(len(equity))], "equity": equity}
        )
        missing = [name for name in EQUITY.polars.names() if name not in frame.columns]
        frame = frame.with_columns(
            (pl.lit("x") if EQUITY.polars[name] == pl.String else pl.lit(0)).alias(name) for name in missing
        )
        frame = frame.select(pl.col(name).cast(kind) for name, kind in EQUITY.polars.items())
        resources.lake.replace([("trading.equity", "true", [], frame)])

    put(100.0, 110.0)
    sensing.turn()
    assert webhook.texts == []
    put(100.0, 110.0, 95.0)
    sensing.turn()
    title, body = webhook.texts[0]
    assert (title, "13.6%" in body) == ("cross: drawdown(cross) > 10%", True)
    put(100.0, 110.0, 95.0, 108.0)
    sensing.turn()
    assert webhook.texts[1][0] == "cross: drawdown(cross) > 10% is over"


def test_an_alert_that_is_declared_no_more_is_forgotten(instance, resources, webhook):
    put_hot(resources, NOW - MINUTE, close=5.0)
    Sensing(instance, resources, on_live("close > 1")).turn()
    assert list(resources.alert_states.read("live 1m close > 1")) == ["A"]
    Sensing(instance, resources, on_live("close > 2")).turn()
    assert resources.alert_states.read("live 1m close > 1") == {}
    assert [title for title, _ in webhook.texts] == ["A: close > 1", "A: close > 2"]
