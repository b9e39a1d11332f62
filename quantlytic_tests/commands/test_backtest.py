"""`quantlytic backtest` and `optimize`: what they print and keep, from recorded days of Apple and IBM."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import date

import polars as pl
import pytest
import yaml
from rich.console import Console

import quantlytic_assets as ql
from quantlytic_assets.commands.backtest import show_backtest, show_search
from quantlytic_assets.commands.installation import CommandError, Installation, UsageError
from quantlytic_assets.schemas import features
from quantlytic_assets.services.backtest import full_history, run_backtest, run_search
from quantlytic_assets.trading.backtest.search import IN_SAMPLE
from quantlytic_tests.storage.places import close_all
from quantlytic_tests.trading.backtest.histories import FIRST, LAST, recorded

PLUGIN = '''
import polars as pl
from quantlytic_assets.plugins import Bot, rule


@rule
def every_other(features, *, above: float = 0.0):
    """Hold while the last return is above a bound."""
    change = features.select((pl.col("close") / pl.col("close").shift(1).over("symbol") - 1).alias("change"))["change"]
    return (change > above).cast(pl.Float64)


class Once(Bot):
    size = 10

    def on_bar(self, bar):
        if not self.position(bar.symbol):
            self.order(bar.symbol, self.size)
'''
DATASET = {
    "calendar": "XNYS", "interval": "1d", "first_session": FIRST, "last_session": LAST, "vendors": [],
    "symbols": ["AAPL", "IBM"],
}  # fmt: skip
STRATEGY = {"dataset": "daily", "interval": "1d", "costs": {"commission_bps": 1, "slippage_bps": 2}}
UNIVERSE = {
    "plugins": ["mine.py"],
    "datasets": {"daily": DATASET, "empty": DATASET},
    "strategies": {
        "cross": STRATEGY | {"rule": {"ma_cross": {"fast": 20, "slow": 50}}},
        "own": STRATEGY | {"rule": "every_other"},
        "once": STRATEGY | {"rule": {"Once": {"size": 3}}},
        "nothing": STRATEGY | {"rule": "buy_and_hold", "dataset": "empty"},
        "model": STRATEGY | {"model": "logistic_regression", "min_train_sessions": 100},
    },
}


@pytest.fixture(scope="module")
def installation(tmp_path_factory):
    """An installation whose lake has the bars of the dataset `daily`."""
    root = tmp_path_factory.mktemp("backtests")
    (root / "mine.py").write_text(PLUGIN)
    (root / "universe.yaml").write_text(yaml.safe_dump(UNIVERSE))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANTLYTIC_UNIVERSE", str(root / "universe.yaml"))
        patch.setenv("QUANTLYTIC_HOME", str(root / "home"))
        made = Installation()
        lake, days = made.resources.lake, recorded().bars
        with lake.transaction() as connection:
            connection.execute(f"CREATE TABLE {features.BARS.name} ({features.BARS.ddl})")
        bars = days.with_columns(pl.lit("daily").alias("dataset"), pl.lit(True).alias("complete"))
        hours = days.group_by("session").agg(pl.col("open_time").min(), pl.col("close_time").max())
        hours = hours.with_columns(pl.lit("daily").alias("dataset"))
        lake.replace(
            [
                (features.BARS.name, "true", [], bars.select(features.BARS.polars.names())),
                ("clean.sessions", "true", [], hours),
            ]
        )
        yield made
        close_all()


def told(show, installation, *arguments):
    """What a command prints."""
    text = io.StringIO()
    show(installation, Console(file=text, width=200), *arguments)
    return text.getvalue()


def backtests(installation, strategy):
    sql = "SELECT * FROM trading.backtests WHERE strategy = ? ORDER BY created_at"
    return installation.resources.lake.query(sql, [strategy])


def test_a_backtest_prints_its_figures_keeps_a_row_and_writes_a_report(installation, tmp_path):
    path = tmp_path / "report.html"
    said = told(show_backtest, installation, "cross", date(2011, 1, 3), None, ["rule.ma_cross.fast=10"], path, False)
    assert "buy and hold" in said and "sharpe" in said and "deflated_sharpe" in said and str(path) in said
    assert "random other times" in said
    row = backtests(installation, "cross").row(-1, named=True)
    settings, statistics = json.loads(row["settings"]), json.loads(row["statistics"])
    assert settings["rule"] == {"ma_cross": {"fast": 10, "slow": 50}} and settings["first"] == "2011-01-03"
    assert f"{statistics['total_return']:.2%}" in said
    page = path.read_text()
    assert "<h2>Verdict</h2>" in page and page.count("data:image/png;base64,") == 3
    assert "http" not in page.replace("http-equiv", "")


def test_each_trial_on_record_makes_the_next_one_less_sure(installation, capsys):
    show_backtest(installation, Console(file=io.StringIO()), "own", None, None, [], None, True)
    first = json.loads(capsys.readouterr().out)
    show_search(
        installation, Console(file=io.StringIO()), "own", ["rule.every_other.above=-0.02:0.02:0.005"], None, None, [],
        True, 1, None, True,
    )  # fmt: skip
    search = json.loads(capsys.readouterr().out)
    assert len(search["points"]) == 9 and 0 <= search["overfitting"] <= 1 and search["walk_forward"]["sessions"] > 800
    show_backtest(installation, Console(file=io.StringIO()), "own", None, None, [], None, True)
    second = json.loads(capsys.readouterr().out)
    assert len(backtests(installation, "own")) == 11
    assert (first["statistics"]["trials"], second["statistics"]["trials"]) == (1, 11)
    assert second["statistics"]["total_return"] == first["statistics"]["total_return"]
    assert second["statistics"]["deflated_sharpe"] < first["statistics"]["deflated_sharpe"]


def test_a_search_says_what_the_best_is_worth_out_of_sample(installation, tmp_path):
    axes = ["rule.ma_cross.fast=5:20:5", "rule.ma_cross.slow=50,100"]
    said = told(
        show_search,
        installation,
        "cross",
        axes,
        None,
        None,
        ["exits.stop_loss=10%"],
        True,
        None,
        tmp_path / "search.html",
        False,
    )
    assert "8 points" in said and "out_of_sample" in said and "probability of backtest overfitting" in said
    assert "walk-forward: choosing anew" in said
    best = next(line for line in said.splitlines() if line.startswith("best in sample"))
    assert "rule.ma_cross.fast=" in best and "from then on" in best
    page = (tmp_path / "search.html").read_text()
    assert "<h2>Heat map</h2>" in page and page.count("<tr>") == 9 and "overfitting" in page


def test_points_whose_parameters_do_not_go_together_are_left_out(installation):
    axes = ["rule.ma_cross.fast=10,60", "rule.ma_cross.slow=50,100"]
    said = told(show_search, installation, "cross", axes, None, None, [], False, None, None, False)
    assert "cross: 3 points" in said and "1 points were left out: their parameters do not go together" in said
    with pytest.raises(CommandError, match="at no point of the grid do the parameters go together"):
        told(show_search, installation, "cross", ["rule.ma_cross.fast=60"], None, None, [], False, None, None, False)


def test_trials_are_chosen_before_the_split_the_same_ones_each_time(installation, monkeypatch):
    axes = {"rule.ma_cross.fast": range(2, 40), "rule.ma_cross.slow": range(20, 200), "exits.stop_loss": [None, 0.1]}
    dataset, cross = installation.universe.datasets["daily"], installation.universe.strategies["cross"]
    lake = installation.resources.lake
    found, again = (run_search(lake, dataset, cross, axes, trials=30, workers=workers) for workers in (2, 1))
    assert found.points == again.points and found.table.equals(again.table)
    assert len(found.points) == 30 and len({tuple(point.values()) for point in found.points}) == 30
    assert all(point["rule.ma_cross.fast"] < point["rule.ma_cross.slow"] for point in found.points)
    # What lies after the split is not looked at: cut off, the same points are chosen.
    counted = int(len(found.sessions) * IN_SAMPLE)
    known = full_history(lake, dataset, cross)
    cut = replace(known, bars=known.bars.filter(pl.col("session") < found.sessions[counted + 1]))
    monkeypatch.setattr("quantlytic_assets.trading.backtest.search.IN_SAMPLE", 1.0)
    blind = run_search(lake, dataset, cross, axes, trials=30, history=cut)
    assert blind.points == found.points
    # A space of four points has no fifth one.
    few = run_search(lake, dataset, cross, {"rule.ma_cross.fast": [5, 9], "rule.ma_cross.slow": [20, 30]}, trials=9)
    assert len(few.points) == 4


def test_several_workers_find_what_one_finds(installation, capsys):
    found = []
    for workers in (1, 3):
        axes = ["rule.ma_cross.fast=5:30:5"]
        show_search(
            installation, Console(file=io.StringIO()), "cross", axes, None, None, [], False, workers, None, True
        )
        found.append(json.loads(capsys.readouterr().out)["points"])
    assert found[0] == found[1]


def test_a_bot_is_traded_bar_by_bar(installation):
    dataset, strategy = installation.universe.datasets["daily"], installation.universe.strategies["once"]
    done = run_backtest(installation.resources.lake, dataset, strategy)
    assert done.fills.select("symbol", "side", "quantity").rows() == [("AAPL", "buy", 3.0), ("IBM", "buy", 3.0)]
    with pytest.raises(CommandError, match="only rules are searched"):
        told(show_search, installation, "once", ["costs.slippage_bps=1,2"], None, None, [], False, 1, None, False)


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (("nobody", None, None, []), UsageError, "there are: cross,"),
        (("model", None, None, []), CommandError, "its model has predicted nothing; run: quantlytic backfill model"),
        (("cross", None, None, ["rule.ma_cross.fst=3"]), UsageError, "fast"),
        (("cross", None, None, ["exits.stop_los=3%"]), UsageError, "did you mean stop_loss"),
        (("cross", None, None, ["exits.stop_loss"]), UsageError, "write path=value"),
        (("cross", date(2012, 1, 1), date(2011, 1, 1), []), UsageError, "is before --from"),
        (("cross", date(2031, 1, 1), None, []), CommandError, "no usable bar in these sessions"),
        (("nothing", None, None, []), CommandError, "quantlytic backfill empty"),
    ],
)
def test_what_can_not_be_made_says_why(installation, arguments, error, said):
    with pytest.raises(error, match=said):
        told(show_backtest, installation, *arguments, None, False)


def test_python_gives_the_same(installation, tmp_path):
    done = ql.backtest("cross", start="2012-01-03", end="2012-12-31", set={"rule.ma_cross.fast": 10})
    assert done.curve["session"][0] == date(2012, 1, 3) and done.statistics["sharpe"] is not None
    assert done.report(tmp_path / "x.html") == (tmp_path / "x.html").read_text()
    assert done.events["strategy"].unique().to_list() == ["cross"]
    with pytest.raises(UsageError, match="is no day"):
        ql.backtest("cross", start="yesterday")
