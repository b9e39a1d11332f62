"""features.adjusted_bars in the lake: the numbers of market_data.adjustment, as of any day, and nothing stored."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from quantlytic_assets.market_data.actions.adjustment import adjusted_bars
from quantlytic_assets.market_data.actions.split_factors import split_factors
from quantlytic_assets.market_data.bars import CLEAN_SCHEMA
from quantlytic_assets.market_data.quality.defects import REPAIRS_SCHEMA
from quantlytic_tests.market_data.recorded_prices import actions, clean_bars, lean_actions, lean_bars, lean_renames

FACTORS = ("split_factor", "dividend_factor", "split_open", "split_high", "split_low", "split_close", "split_volume")
TODAY = None
START = date(2020, 1, 1)


def made_up() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Four symbols over sixty days, raw and adjusted bars mixed, and sixty actions of all kinds, some known late."""
    chance = random.Random(20200101)
    days = [START + timedelta(days=i) for i in range(60)]
    bars = []
    for symbol in "ABCD":
        for day in days:
            price = chance.uniform(50, 60)
            late = day + timedelta(days=chance.randrange(30))
            fetched = chance.choice([date(2021, 1, 1), day, day - timedelta(days=1), late])
            bars.append(
                {
                    "symbol": symbol,
                    "session": day,
                    "open": price,
                    "high": price + 1,
                    "low": price - 1,
                    "close": price + chance.uniform(-1, 1),
                    "volume": float(chance.randrange(1000)),
                    "adjustment": chance.choice(["none", "split"]),
                    "fetched_at": datetime(fetched.year, fetched.month, fetched.day, 23, tzinfo=UTC),
                    "flags": chance.choice([[], ["zero_volume"], ["out_of_session"]]),
                }
            )
    told = {}
    for _ in range(60):
        kind, symbol = chance.choice(["split", "dividend", "rename"]), chance.choice("ABCD")
        day = chance.choice(days[1:])
        values = {
            "split": chance.choice([2, 0.5, 3, 7]),
            "dividend": chance.uniform(0.1, 2),
            "rename": chance.choice("ABCDEF"),
        }
        known = day if chance.random() < 0.8 else chance.choice(days)
        told[symbol, day, kind] = (symbol, day, kind, values[kind], known)
    # Two become a third.
    for symbol in "AB":
        told[symbol, days[40], "rename"] = (symbol, days[40], "rename", "G", days[40])
    # More than a share costs.
    told["D", days[50], "dividend"] = ("D", days[50], "dividend", 1e4, days[50])
    return clean_bars(pl.DataFrame(bars), "made_up"), actions(*told.values(), dataset="made_up")


@pytest.fixture(scope="module")
def lake(warehouse):
    """A lake with three datasets, and the view that dbt has made."""
    apple = lean_bars("AAPL", first=date(2012, 6, 1), last=date(2015, 12, 31))
    tickers = lean_bars("WM", "UW", "QQQ", "FB")
    parts = [
        made_up(),
        (clean_bars(apple, "apple"), lean_actions("AAPL")),
        (clean_bars(tickers, "tickers"), lean_renames()),
    ]
    names = ("made_up", "apple", "tickers")
    bars = [rows.with_columns(pl.lit(name).alias("dataset")) for name, (rows, _) in zip(names, parts, strict=True)]
    told = [rows.with_columns(pl.lit(name).alias("dataset")) for name, (_, rows) in zip(names, parts, strict=True)]
    sessions = bars[2].select("dataset", "session", "open_time", "close_time").unique()
    warehouse.lake.replace(
        [
            ("clean.bars", "false", [], pl.concat(bars)),
            ("clean.corporate_actions", "false", [], pl.concat(told)),
            ("clean.sessions", "false", [], sessions),
            ("clean.split_factors", "false", [], split_factors(lean_renames(), "tickers")),
        ]
    )
    warehouse.build("tickers", "1998-01-01", "2012-12-31", "1d", ["1d"], [2])
    return warehouse.lake


def asked(lake, dataset: str, as_of: date | None) -> pl.DataFrame:
    connection = lake.connect()
    if as_of is not None:
        connection.execute(f"SET VARIABLE as_of = DATE '{as_of}'")
    try:
        found = connection.execute("SELECT * FROM features.adjusted_bars WHERE dataset = ?", [dataset]).pl()
    finally:
        connection.execute("RESET VARIABLE as_of")
    return found.sort("symbol", "open_time")


def stored(lake, dataset: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    bars = lake.query("SELECT * FROM clean.bars WHERE dataset = ?", [dataset]).select(CLEAN_SCHEMA.names())
    return bars, lake.query("SELECT * FROM clean.corporate_actions WHERE dataset = ?", [dataset])


@pytest.mark.parametrize(
    ("dataset", "as_of"),
    [
        *(("made_up", day) for day in (date(2020, 1, 5), date(2020, 1, 20), date(2020, 2, 3), TODAY)),
        *(("apple", day) for day in (date(2014, 6, 6), date(2014, 6, 9), TODAY)),
        *(("tickers", day) for day in (date(1998, 7, 17), date(2009, 8, 4), date(2009, 8, 5), TODAY)),
    ],
)
def test_the_view_says_what_the_formulas_say(lake, dataset: str, as_of: date | None):
    found = asked(lake, dataset, as_of)
    wanted = adjusted_bars(*stored(lake, dataset), as_of or datetime.now(UTC).date()).sort("symbol", "open_time")
    assert len(found) == len(wanted)
    assert len(found) > 0
    for name in ("symbol", "instrument", "session", "open", "close", "volume", "adjustment", "as_of", "flags"):
        assert found[name].equals(wanted[name]), name
    for name in (*FACTORS, "adjusted_close"):
        # A volume of zero is zero whatever the factor.
        apart = (found[name] - wanted[name]).abs() / pl.select(pl.max_horizontal(wanted[name].abs(), 1e-9)).to_series()
        assert (apart.max() or 0.0) < 1e-12, name


def test_an_action_that_comes_late_is_seen_at_once_and_changes_no_stored_row(lake):
    day = date(2012, 8, 1)
    bars, _ = stored(lake, "apple")
    before, eve = asked(lake, "apple", TODAY), asked(lake, "apple", date(2012, 7, 31))
    late = actions(("AAPL", day, "split", 3), dataset="apple")
    try:
        lake.replace([("clean.corporate_actions", "false", [], late)])
        after = asked(lake, "apple", TODAY)
        assert asked(lake, "apple", date(2012, 7, 31)).equals(eve)
    finally:
        lake.replace([("clean.corporate_actions", "dataset = 'apple' AND session = ?", [day], late.clear())])
    ratio = after["split_close"] / before["split_close"]
    assert ratio.filter(after["session"] < day).to_list() == pytest.approx([1 / 3] * 42)
    assert set(ratio.filter(after["session"] >= day)) == {1.0}
    assert stored(lake, "apple")[0].equals(bars) and asked(lake, "apple", TODAY).equals(before)


def test_repaired_values_are_used_and_said_to_be(lake):
    bar = asked(lake, "apple", TODAY).row(by_predicate=pl.col("session") == date(2014, 5, 7), named=True)
    repair = {name: bar[name] for name in ("dataset", "symbol", "session", "open_time")}
    repair |= {"defect": "times_100", "open": 1.0, "high": 3.0, "low": 1.0, "close": 300.0, "volume": 5.0}
    row = pl.DataFrame([repair], schema=REPAIRS_SCHEMA)
    try:
        lake.replace([("clean.repairs", "false", [], row)])
        found = asked(lake, "apple", TODAY)
    finally:
        lake.replace([("clean.repairs", "dataset = 'apple'", [], row.clear())])
    mended = found.filter("repaired")
    assert mended.select("session", "close", "volume").rows() == [(date(2014, 5, 7), 300.0, 5.0)]
    assert mended["split_close"].item() == pytest.approx(300 / 28, rel=1e-5)
    # The dividend of the next day was paid on a share of the repaired close.
    factors = found["dividend_factor"] / found["dividend_factor"].shift(-1)
    assert factors.filter(found["session"] == date(2014, 5, 7)).item() == pytest.approx(1 - 3.29 / 300, rel=1e-3)


def test_no_label_goes_on_from_one_company_to_the_next_under_its_ticker(lake):
    labels = lake.query("SELECT symbol, session, label_session FROM features.labels WHERE dataset = 'tickers'")
    # Each ticker has bars of both sides; three of each side have no exit two bars after the entry there.
    sides = {"WM": date(2009, 8, 5), "QQQ": date(2011, 3, 23), "FB": date(2012, 5, 18)}
    for symbol, day in sides.items():
        mine = labels.filter(symbol=symbol)
        assert mine.filter(pl.col("session") < day, pl.col("label_session") >= day).is_empty()
        assert sorted((mine["session"] < day).to_list()) == [False] * 3 + [True] * 3
    assert len(labels.filter(symbol="UW")) == 3
