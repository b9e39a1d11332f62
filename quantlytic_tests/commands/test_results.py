"""What `demo` and `backfill` end with: percents where people read percents, each figure explained once."""

from __future__ import annotations

import io
from types import SimpleNamespace

import dagster as dg
import pytest
from rich.console import Console

from quantlytic_assets.commands.results import show_results
from quantlytic_assets.learning.evaluation import METRIC_NAMES
from quantlytic_assets.resources import make_resources
from quantlytic_assets.settings import Settings
from quantlytic_assets.trading.backtest.figures import NAMES
from quantlytic_assets.trading.figures import FIGURES, legend, shown
from quantlytic_tests.learning.frames import strategy

FIGURES_OF_RUN = {"total_return": ("0.1234", "-0.5"), "sharpe": ("1.5", "undefined"), "trades": ("1234.0", "3.0")}


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("total_return", 0.12345, "12.35%"),
        ("max_drawdown", -0.3, "-30.00%"),
        ("persistence_accuracy", 0.5, "50.00%"),
        ("sharpe", 1.234, "1.23"),
        ("turnover", 12.34, "12.3x"),
        ("total_costs", 12345.6, "12,346"),
        ("persistence_ic", 0.01234, "0.0123"),
        ("cagr", None, "undefined"),
    ],
)
def test_a_figure_is_written_as_people_read_it(name, value, text):
    assert shown(name, value) == text


def test_every_figure_has_a_meaning():
    for name in (*NAMES, *METRIC_NAMES):
        assert FIGURES[name].meaning in legend([name])


def test_each_strategy_has_a_table_and_each_figure_one_explanation(tmp_path):
    with dg.DagsterInstance.ephemeral() as instance:
        for name in ("one", "two"):
            records = [
                dg.TableRecord({"statistic": figure, "strategy": mine, "buy_and_hold": held})
                for figure, (mine, held) in FIGURES_OF_RUN.items()
            ]
            metadata = {
                "statistics": dg.MetadataValue.table(records),
                "forecast/accuracy": 0.52,
                "forecast/persistence_accuracy": 0.49,
            }
            key = dg.AssetKey([name, "performance"])
            instance.report_runless_asset_event(dg.AssetMaterialization(key, metadata=metadata))
            # A report that is newer than the trades is not made again.
            made = tmp_path / "reports" / f"{name}.html"
            made.parent.mkdir(exist_ok=True)
            made.write_text("made")
        out = io.StringIO()
        settings = Settings(home=tmp_path)
        installation = SimpleNamespace(instance=instance, settings=settings, resources=make_resources(settings))
        strategies = [strategy(name=name) for name in ("one", "two", "three")]
        show_results(installation, Console(file=out, width=400), strategies)
    text = out.getvalue()
    assert text.count("12.34%") == text.count("-50.00%") == 2 and text.count("undefined") == 2
    assert text.count("forecasts out of sample: accuracy 52.00%, persistence_accuracy 49.00%") == 2
    served = "http://127.0.0.1:3002/strategies/one/report"
    assert f"report: {tmp_path}/reports/one.html   while `quantlytic serve` runs: {served}" in text
    assert (tmp_path / "reports" / "one.html").read_text() == "made"
    assert "three: no report yet" in text
    for name in ("total_return", "sharpe", "trades", "accuracy", "persistence"):
        assert text.count(FIGURES[name].meaning) == 1, name
