"""The dbt models on real bars: right numbers, the same whatever the order of runs, nothing half-written."""

import signal
import subprocess
import time
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from quantlytic_assets.calendars.intervals import INTERVALS
from quantlytic_assets.calendars.sessions import assign_sessions, expected_bars, session_table

TABLES = ("features.bars", "features.indicators", "features.labels")
# Two weeks and more lie between the last two: further than the models look at first.
DAYS = [date(2025, 5, 10), date(2025, 5, 11), date(2025, 5, 12), date(2025, 5, 30)]
ROUND_THE_CLOCK = ("1m", ["5m", "1h"], [1, 5])


def at(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)


@pytest.fixture(scope="module")
def crypto(sample) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Minutes of three coins: one complete, one listed late and with holes, one that is away for two sessions."""
    bars = sample("crypto_1m").filter(pl.col("symbol").is_in(["BTC-USD", "SOL-USD", "ADA-USD"]))
    bars = assign_sessions(bars, "24/7").filter(pl.col("session").is_in(DAYS))
    late = (pl.col("symbol") == "SOL-USD") & (pl.col("session") == DAYS[0])
    away = (pl.col("symbol") == "ADA-USD") & pl.col("session").is_in(DAYS[1:3])
    hole = (pl.col("symbol") == "SOL-USD") & pl.col("open_time").is_between(
        at(2025, 5, 12, 10), at(2025, 5, 12, 10, 32), closed="left"
    )
    minute = (pl.col("symbol") == "BTC-USD") & (pl.col("open_time") == at(2025, 5, 11, 15, 7))
    bars = bars.filter(~(late | away | hole | minute))
    bars = bars.with_columns(close_time=pl.col("open_time") + timedelta(minutes=1))
    sessions = session_table("24/7", DAYS[0], DAYS[-1]).filter(pl.col("session").is_in(DAYS))
    return bars, sessions


@pytest.fixture(scope="module")
def whole(warehouse, crypto) -> None:
    """The dataset `whole`, built in one run."""
    warehouse.add("whole", *crypto)
    warehouse.build("whole", "2025-05-10", "2025-05-31", *ROUND_THE_CLOCK)


def assert_equal_rows(found: pl.DataFrame, wanted: pl.DataFrame) -> None:
    assert len(wanted) > 0
    assert found.columns == wanted.columns
    exact = [name for name, kind in wanted.schema.items() if kind != pl.Float64]
    assert found.select(exact).equals(wanted.select(exact))
    for name in set(wanted.columns) - set(exact):
        assert found[name].is_null().equals(wanted[name].is_null()), name
        # What is left of a price's last digit is no smaller because a difference of two prices is.
        noise = 1e-15 * wanted["close"].max() if "macd" in name else 0
        np.testing.assert_allclose(
            found[name].drop_nulls(), wanted[name].drop_nulls(), rtol=1e-9, atol=noise, err_msg=name
        )


def test_ranges_out_of_order_and_late_give_the_rows_of_one_rebuild(warehouse, crypto, whole):
    warehouse.add("parts", *crypto)
    for start, end in [
        ("2025-05-30", "2025-05-31"),
        ("2025-05-10", "2025-05-12"),
        ("2025-05-12", "2025-05-13"),
    ]:
        warehouse.build("parts", start, end, *ROUND_THE_CLOCK)
    for name in TABLES:
        assert_equal_rows(warehouse.table(name, "parts"), warehouse.table(name, "whole"))


def test_the_servers_lake_gives_the_same_features(served_warehouse, warehouse, crypto, whole):
    served_warehouse.add("whole", *crypto)
    for start, end in [("2025-05-10", "2025-05-12"), ("2025-05-12", "2025-05-31")]:
        said = served_warehouse.build("whole", start, end, *ROUND_THE_CLOCK)
        kept = b"".join(path.read_bytes() for path in served_warehouse.target.rglob("*.*") if path.is_file())
        for secret in served_warehouse.secrets:
            assert secret not in said and secret.encode() not in kept
    for name in TABLES:
        assert_equal_rows(served_warehouse.table(name, "whole"), warehouse.table(name, "whole"))


def test_incomplete_buckets_are_flagged_and_empty_ones_are_not_made_up(warehouse, crypto, whole):
    bars = warehouse.table("features.bars", "whole")
    partial = bars.filter(~pl.col("complete"))
    assert partial.select("symbol", "interval", "open_time").rows() == [
        ("BTC-USD", "1h", at(2025, 5, 11, 15)),
        ("BTC-USD", "5m", at(2025, 5, 11, 15, 5)),
        ("SOL-USD", "1h", at(2025, 5, 12, 10)),
        ("SOL-USD", "5m", at(2025, 5, 12, 10, 30)),
    ]
    sol = bars.filter(pl.col("symbol") == "SOL-USD", pl.col("interval") == "5m")
    assert sol.filter(pl.col("open_time").is_between(at(2025, 5, 12, 10), at(2025, 5, 12, 10, 25))).is_empty()
    minutes, _ = crypto
    assert bars.group_by("interval").agg(pl.col("volume").sum()).sort("interval")["volume"].to_list() == pytest.approx(
        [minutes["volume"].sum()] * 2
    )


def test_labels_are_the_trade_they_describe(warehouse, whole):
    labels = warehouse.table("features.labels", "whole")
    bars = warehouse.table("features.bars", "whole").with_columns(price=pl.when("complete").then("open"))
    for horizon in (1, 5):
        following = bars.sort("open_time").with_columns(
            entry=pl.col("price").shift(-1).over("symbol", "interval"),
            exit=pl.col("price").shift(-1 - horizon).over("symbol", "interval"),
            known=pl.col("available_at").shift(-1 - horizon).over("symbol", "interval"),
            due=pl.col("session").shift(-1 - horizon).over("symbol", "interval"),
        )
        usable = pl.all_horizontal(pl.col("price", "entry", "exit").is_not_null())
        wanted = following.filter(usable).sort("symbol", "interval", "open_time")
        found = labels.filter(pl.col("horizon") == horizon).sort("symbol", "interval", "open_time")
        assert found["open_time"].equals(wanted["open_time"])
        assert found["label_session"].equals(wanted["due"].rename("label_session"))
        assert found["label_available_at"].equals(wanted["known"].rename("label_available_at"))
        np.testing.assert_allclose(found["forward_return"], wanted["exit"] / wanted["entry"] - 1, rtol=1e-9, atol=1e-15)
        assert found["label"].to_list() == (found["forward_return"] > 0).cast(pl.Int32).to_list()


def test_a_killed_run_leaves_each_table_whole_and_the_next_run_mends_it(warehouse, crypto, whole):
    warehouse.add("killed", *crypto)
    command, environment = warehouse.command("killed", "2025-05-10", "2025-05-31", *ROUND_THE_CLOCK)
    files = warehouse.lake.scratch / "data" / "features" / "momentum" / "dataset=killed"
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not files.exists():
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL
    for name in TABLES:
        assert len(warehouse.table(name, "killed")) in (0, len(warehouse.table(name, "whole")))
    warehouse.build("killed", "2025-05-10", "2025-05-31", *ROUND_THE_CLOCK)
    for name in TABLES:
        assert warehouse.table(name, "killed").equals(warehouse.table(name, "whole"))


HALF_DAY = date(2025, 7, 3)
LUNCH = date(2025, 7, 8)


@pytest.fixture(scope="module")
def equities(sample, warehouse) -> pl.DataFrame:
    """Five minutes of AAPL around a half day, extended hours kept, and one made-up session with a lunch break."""
    bars = sample("equities_5m").filter(pl.col("symbol") == "AAPL")
    bars = assign_sessions(bars, "XNYS").filter(pl.col("session").is_between(date(2025, 7, 2), date(2025, 7, 7)))
    bars = bars.with_columns(close_time=pl.col("open_time") + timedelta(minutes=5))
    grid = expected_bars("XHKG", "5m", LUNCH, LUNCH)
    price = pl.int_range(len(grid)).cast(pl.Float64) + 100
    lunch = grid.with_columns(
        symbol=pl.lit("AAPL"), open=price, high=price + 0.5, low=price - 0.5, close=price + 0.25, volume=1.0
    )
    bars = pl.concat([bars, lunch.select(bars.columns)])
    sessions = pl.concat(
        [session_table("XNYS", date(2025, 7, 2), date(2025, 7, 7)), session_table("XHKG", LUNCH, LUNCH)]
    )
    warehouse.add("equities", bars, sessions)
    warehouse.build("equities", "2025-07-02", "2025-07-09", "5m", ["5m", "15m", "1h", "1d"])
    return bars.join(sessions.rename({"open_time": "opens", "close_time": "closes"}), on="session")


@pytest.mark.parametrize("interval", ["15m", "1h", "1d"])
def test_resampled_bars_are_those_of_an_independent_computation(warehouse, equities, interval):
    step = INTERVALS[interval]
    inside = equities.filter(
        pl.col("open_time") >= pl.col("opens"), pl.col("open_time") < pl.col("closes"), pl.col("session") != LUNCH
    )
    counted = pl.lit(0) if interval == "1d" else ((pl.col("open_time") - pl.col("opens")) / step).floor().cast(pl.Int64)
    wanted = (
        inside.sort("open_time")
        .with_columns(bucket=counted)
        .group_by("session", "opens", "closes", "bucket", maintain_order=True)
        .agg(
            pl.col("open").first(),
            pl.col("high").max(),
            pl.col("low").min(),
            pl.col("close").last(),
            pl.col("volume").sum(),
            pl.len().alias("bars"),
        )
        .with_columns(open_time=pl.col("opens") + pl.col("bucket") * step)
        .with_columns(close_time=pl.min_horizontal("closes", pl.col("open_time") + step))
    )
    if interval == "1d":
        wanted = wanted.with_columns(open_time=pl.col("opens"), close_time=pl.col("closes"))
    lasting = (pl.col("close_time") - pl.col("open_time")) / timedelta(minutes=5)
    wanted = wanted.with_columns(complete=pl.col("bars") == lasting, available_at=pl.col("close_time"))
    found = warehouse.table("features.bars", "equities").filter(
        pl.col("interval") == interval, pl.col("session") != LUNCH
    )
    found = found.join(equities.select("session", "opens", "closes").unique(), on="session").filter(
        pl.col("open_time") >= pl.col("opens"), pl.col("open_time") < pl.col("closes")
    )
    columns = ["session", "open_time", "close_time", "open", "high", "low", "close", "available_at", "complete"]
    assert found.sort("open_time").select(columns).equals(wanted.select(columns))
    assert found.sort("open_time")["volume"].to_list() == pytest.approx(wanted["volume"].to_list())


def test_a_half_day_ends_at_its_early_close(warehouse, equities):
    bars = warehouse.table("features.bars", "equities").filter(pl.col("session") == HALF_DAY)
    day = bars.filter(pl.col("interval") == "1d").row(0, named=True)
    assert (day["open_time"], day["close_time"]) == (at(2025, 7, 3, 13, 30), at(2025, 7, 3, 17))
    hours = bars.filter(pl.col("interval") == "1h", pl.col("open_time") < at(2025, 7, 3, 17))
    assert hours["close_time"].max() == at(2025, 7, 3, 17)
    last = hours.sort("open_time").row(-1, named=True)
    assert (last["open_time"], last["complete"]) == (at(2025, 7, 3, 16, 30), True)


def test_extended_hours_never_share_a_bucket_with_the_session(warehouse, equities):
    bars = warehouse.table("features.bars", "equities").join(
        equities.select("session", "opens", "closes").unique(), on="session"
    )
    for edge in ("opens", "closes"):
        assert bars.filter(pl.col("open_time") < pl.col(edge), pl.col("close_time") > pl.col(edge)).is_empty()
    hourly = bars.filter(pl.col("interval") == "1h", pl.col("session") == HALF_DAY)
    assert hourly["open_time"].min() == at(2025, 7, 3, 7, 30)
    assert at(2025, 7, 3, 17) in hourly["open_time"].to_list()


def test_buckets_start_again_after_a_lunch_break(warehouse, equities):
    bars = warehouse.table("features.bars", "equities").filter(pl.col("session") == LUNCH)
    for interval in ("15m", "1h", "1d"):
        found = bars.filter(pl.col("interval") == interval).sort("open_time")
        wanted = expected_bars("XHKG", interval, LUNCH, LUNCH)
        assert found.select("session", "open_time", "close_time").equals(wanted)
        assert found["complete"].all()


def test_the_native_interval_is_passed_through(warehouse, equities):
    found = warehouse.table("features.bars", "equities").filter(pl.col("interval") == "5m").sort("open_time")
    wanted = equities.sort("open_time")
    columns = ["session", "open_time", "close_time", "open", "high", "low", "close", "volume"]
    assert found.select(columns).equals(wanted.select(columns))
    assert found["complete"].all()
