"""Signals of rules: a range is what one rebuild gives, whatever is looked back on, and what changes their version."""

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from quantlytic_assets.schemas import features
from quantlytic_assets.schemas.trading import SIGNALS
from quantlytic_assets.services.signals import (
    NoSignals,
    bound_rule,
    make_signals,
    rule_frame,
    rule_version,
    signal_figures,
    write_signals,
)
from quantlytic_assets.storage.lake import local_lake
from quantlytic_assets.strategies.spec import RuleError
from quantlytic_assets.tables.features import earlier_session
from quantlytic_assets.tables.signals import newest_signals, signal_counts
from quantlytic_assets.tables.whole_rows import between, signals
from quantlytic_assets.trading.engine.settings import EngineSettings
from quantlytic_assets.universe.models import Strategy
from quantlytic_tests.frames import utc

FIRST = date(2024, 1, 2)
DAYS = [FIRST + timedelta(days=i) for i in range(60)]
SYMBOLS = ("AAA", "BBB", "CCC")
COLUMNS = ("sma_20", "sma_50", "roc_20")
PLUGIN = """
import polars as pl
from quantlytic_assets.plugins import Bot, rule

@rule(lookback=3)
def slope(features, *, least: float = 0.0):
    "Long while the close is above that of three bars before, and above the average of the symbols' changes."
    change = (pl.col("close") / pl.col("close").shift(3) - 1).over("symbol", order_by="open_time")
    return pl.when(change > change.mean().over("open_time") + least).then(1.0).when(change.is_not_null()).then(0.0)

class Dip(Bot):
    def on_bar(self, bar):
        pass
"""


def strategy(rule, name="mine", plugins=(), declared=("core",), symbols=SYMBOLS) -> Strategy:
    return Strategy(name, "d", "1d", symbols, rule, EngineSettings(100_000.0), declared, plugins)


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """Three symbols, one of which comes later and does not trade for three weeks; features.indicators as a table."""
    lake = local_lake(tmp_path_factory.mktemp("lake"), threads=1)
    random = np.random.default_rng(7)
    frames = []
    for place, symbol in enumerate(SYMBOLS):
        closes = 100 * np.exp(np.cumsum(random.normal(0, 0.02, len(DAYS))))
        gone = np.array([(place == 2 and (i < 5 or 20 <= i < 41)) or random.random() < 0.05 for i in range(len(DAYS))])
        rows = {
            "dataset": "d", "symbol": symbol, "session": DAYS, "interval": "1d",
            "open_time": [utc(f"{day}T14:30") for day in DAYS], "available_at": [utc(f"{day}T21:00") for day in DAYS],
            "close": np.where(gone, None, closes).tolist(), "history_bars": np.where(gone, None, 7).tolist(),
        }  # fmt: skip
        values = {name: np.where(gone, None, closes * random.uniform(0.95, 1.05, len(DAYS))) for name in COLUMNS}
        frames.append(pl.DataFrame(rows | {name: one.tolist() for name, one in values.items()}, strict=False))
    rows = pl.concat(frames)
    with lake.transaction() as connection:
        connection.execute(f"CREATE TABLE {features.CLOSES.name} ({features.CLOSES.ddl})")
        more = ", ".join(f"{name} DOUBLE" for name in COLUMNS)
        connection.execute(f"CREATE TABLE {features.INDICATORS.name} ({features.INDICATORS.ddl}, {more})")
    closes = rows.select(features.CLOSES.polars.names())
    lake.replace([(features.CLOSES.name, "true", [], closes), (features.INDICATORS.name, "true", [], rows)])
    return lake


@pytest.fixture
def plugin(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    return (str(path),)


def rules(plugins) -> list[Strategy]:
    """A rule of each kind: without looking back, by periods, across symbols, a user's own."""
    return [
        strategy("ma_cross"),
        strategy("buy_and_hold"),
        strategy({"rebalance": {"every": "weekly"}}),
        strategy({"momentum_rotation": {"window": 20, "top": 1, "every": "weekly"}}),
        strategy({"slope": {"least": 0.001}}, plugins=plugins, declared=("sma(20)",)),
    ]


@pytest.mark.parametrize("step", [1, 7])
def test_signals_of_ranges_are_those_of_one_rebuild(lake, plugin, step):
    for one in rules(plugin):
        if one.rule_name == "slope":
            with pytest.raises(NoSignals, match=r"has no column ret_1 yet; run: quantlytic backfill d"):
                make_signals(lake, one, DAYS[0], DAYS[3])
            with lake.transaction() as connection:
                connection.execute(f"ALTER TABLE {features.INDICATORS.name} ADD COLUMN IF NOT EXISTS ret_1 DOUBLE")
        whole = make_signals(lake, one, DAYS[0], DAYS[-1] + timedelta(days=1))
        days = [*DAYS[::step], DAYS[-1] + timedelta(days=1)]
        parts = [make_signals(lake, one, since, before) for since, before in zip(days, days[1:], strict=False)]
        assert whole.schema == SIGNALS.polars
        assert pl.concat(parts).sort("symbol", "open_time").equals(whole), one.rule
        assert len(whole) == 3 * 60 - lake.query("SELECT count(*) FROM features.closes WHERE close IS NULL").item()
    with lake.transaction() as connection:
        connection.execute(f"ALTER TABLE {features.INDICATORS.name} DROP COLUMN ret_1")


def test_what_a_rule_looks_back_on_is_read_and_no_more(lake):
    rotation = strategy({"momentum_rotation": {"window": 20}})
    rule = bound_rule(rotation)
    rows = rule_frame(lake, rotation, rule, DAYS[30], DAYS[33])
    # The one that does not trade then is not looked for.
    assert set(rows.filter(pl.col("session") >= DAYS[30])["symbol"]) == {"AAA", "BBB"}
    assert rows["session"].min() >= DAYS[26]
    # Its last bar before it trades again is weeks back, and all of that session are read.
    rows = rule_frame(lake, rotation, rule, DAYS[41], DAYS[44])
    assert rows["session"].min() <= DAYS[19] and {"AAA", "BBB", "CCC"} == set(rows["symbol"])
    cross = strategy("ma_cross")
    assert rule_frame(lake, cross, bound_rule(cross), DAYS[41], DAYS[44])["session"].min() >= DAYS[41]


def test_the_earliest_session_of_last_bars(lake):
    assert earlier_session(lake, "d", "1d", ["AAA"], bars=1, before=DAYS[0]) is None
    near = earlier_session(lake, "d", "1d", ["AAA"], bars=2, before=DAYS[30])
    assert near is not None and DAYS[24] <= near <= DAYS[28]
    assert (earlier_session(lake, "d", "1d", ["AAA", "CCC"], bars=1, before=DAYS[41]) or DAYS[41]) <= DAYS[19]
    assert earlier_session(lake, "other", "1d", ["AAA"], bars=1, before=DAYS[30]) is None


def test_a_range_written_again_takes_the_place_of_what_was_there_and_of_nothing_else(lake):
    hold, cross = strategy("buy_and_hold", "hold"), strategy("ma_cross", "cross")
    write_signals(lake, hold, DAYS[0], DAYS[20])
    write_signals(lake, cross, DAYS[0], DAYS[20])
    before = signals(lake, "hold")
    for _ in range(2):
        write_signals(lake, hold, DAYS[5], DAYS[10])
    assert signals(lake, "hold").equals(before)
    write_signals(lake, replace(hold, symbols=("AAA",)), DAYS[0], DAYS[20])
    assert set(signals(lake, "hold")["symbol"]) == {"AAA"}
    assert len(signals(lake, "cross", *between(DAYS[3], DAYS[4], None))) in (2, 3)
    counts = signal_counts(lake, "hold", before=DAYS[20])
    assert counts["buys"].sum() == len(signals(lake, "hold")) and counts["sells"].sum() == 0
    newest = newest_signals(lake, "cross")
    assert newest["symbol"].to_list() == list(SYMBOLS) and set(newest["signal"]) <= {"buy", "sell"}
    assert newest_signals(lake, "nobody").is_empty() and signal_counts(lake, "nobody").is_empty()


def test_figures_are_counted_by_a_column(lake):
    made = make_signals(lake, strategy("ma_cross"), DAYS[0], DAYS[-1])
    figures = signal_figures(made, "symbol")
    assert sum(one[kind] for one in figures.values() for kind in ("buys", "sells", "holds")) == len(made)
    assert all(one["symbols"] == 1 for one in figures.values())


def test_another_rule_parameter_symbol_or_plugin_is_another_version(plugin, tmp_path):
    versions = [
        rule_version(one)
        for one in (
            strategy("ma_cross"),
            strategy({"ma_cross": {"fast": 10}}),
            strategy("ma_cross", symbols=("AAA",)),
            strategy("rsi"),
            strategy("slope", plugins=plugin),
        )
    ]
    assert len(set(versions)) == len(versions)
    # What is said otherwise and means the same is the same, as are other settings of the account.
    assert rule_version(strategy({"ma_cross": {"slow": 50}})) == versions[0]
    assert rule_version(replace(strategy("ma_cross"), settings=EngineSettings(5.0))) == versions[0]
    # A plugin's text is in the version of its own rules, not in that of ours.
    (tmp_path / "mine.py").write_text(PLUGIN + "\n# changed\n")
    assert rule_version(strategy("slope", plugins=plugin)) != versions[-1]
    assert rule_version(strategy("ma_cross", plugins=plugin)) == versions[0]


def test_a_bot_has_no_signals_and_a_rule_that_fails_is_named(lake, plugin, tmp_path):
    with pytest.raises(NoSignals, match="mine follows the bot Dip, which decides with its positions in view"):
        bound_rule(strategy("Dip", plugins=plugin))
    (tmp_path / "bad.py").write_text(
        "from quantlytic_assets.plugins import rule\n\n@rule\ndef bad(features):\n    return [2.0] * len(features)\n"
    )
    bad = strategy("bad", plugins=(str(tmp_path / "bad.py"),), declared=("sma(20)",))
    with lake.transaction() as connection:
        connection.execute(f"ALTER TABLE {features.INDICATORS.name} ADD COLUMN ret_1 DOUBLE")
    with pytest.raises(RuleError, match="rule bad: the target of row 0"):
        make_signals(lake, bad, DAYS[0], DAYS[3])
