"""The JSON Schema that editors use: as shipped it is the one of the models, and it takes and refuses the same files."""

import json
from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor

from quantlytic_assets.settings import CHECKOUT
from quantlytic_assets.universe.schema import SCHEMA_FILE, universe_schema
from quantlytic_tests.universe.test_loading import DATASET, OUTAGES, STRATEGY, replaced

SHIPPED = json.loads(SCHEMA_FILE.read_text("utf-8"))


class Editor(SafeConstructor):
    """YAML 1.2, whose dates and times are text."""


Editor.add_constructor("tag:yaml.org,2002:timestamp", lambda _, node: node.value)


def as_editors_read(text: str) -> object:
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = Editor
    return yaml.load(text)


def faults(text: str) -> list[str]:
    validator = jsonschema.Draft202012Validator(SHIPPED)
    return [error.json_path for error in validator.iter_errors(as_editors_read(text))]


def universe(datasets: str = DATASET, strategies: str = "") -> str:
    return f"datasets:{datasets}" + (f"strategies:{strategies}" if strategies else "")


def test_the_shipped_schema_is_the_one_of_the_models():
    assert universe_schema() == SHIPPED, "run: python -m quantlytic_assets.universe.schema"
    jsonschema.Draft202012Validator.check_schema(SHIPPED)


def test_the_shipped_universe_names_the_schema_and_fits_it():
    text = (CHECKOUT / "universe.yaml").read_text("utf-8")
    first, _, _ = text.partition("\n")
    assert first.startswith("# yaml-language-server: $schema=")
    assert (CHECKOUT / first.partition("=")[2]).samefile(SCHEMA_FILE)
    assert faults(text) == []


def test_each_field_is_described_where_an_editor_shows_it():
    for name, declared in [*SHIPPED["$defs"].items(), ("the file", SHIPPED)]:
        for field, schema in declared["properties"].items():
            assert schema.get("description"), (name, field)


@pytest.mark.parametrize(
    "text",
    [
        universe(strategies=STRATEGY),
        universe(replaced("symbols", "[600519, '000001', ^TNX]")),
        universe(replaced("symbols", "[{symbol: ETH-USD, names: {binance: ETHUSDC}}]")),
        universe(replaced("feed", "binance_trades")),
        universe(replaced("stale_after", "1h", replaced("keep", "550d"))),
        universe(replaced("compare_with", "{dataset: other_1m, tolerance_bps: 2.5}")),
        universe(replaced("incomplete_bars", "keep")),
        universe(replaced("replay_from", "2025-05-20")),
        universe() + OUTAGES,
        universe(strategies=STRATEGY + "    capital: 0.5\n    costs: {slippage_bps: 0}\n"),
    ],
)
def test_right_files_fit_the_schema(text):
    assert faults(text) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("calendar", "NYZE"), ("interval", "2m"), ("interval", ""), ("partition", "week"), ("out_of_session", "maybe"),
        ("incomplete_bars", "maybe"), ("first_session", "2025-05-10 09:30:00"), ("first_session", "20250510"),
        ("delay", "5"), ("delay", "soon"), ("vendors", "sample"), ("vendors", "[sampel]"),
        ("vendors", "[sample, sample]"), ("symbols", "[]"),
        ("symbols", "{A: 1}"), ("symbols", "[[A]]"), ("symbols", "['A B']"),
        ("symbols", "[{from: 2025-05-20}]"), ("symbols", "[{symbol: A, until: 2025-05-20}]"),
        ("symbols", "[{symbol: A, names: {binanse: AX}}]"), ("symbols", "[{symbol: A, names: AX}]"),
        ("feature_intervals", "[]"), ("feature_intervals", "[30m]"), ("venue", "[x]"), ("colour", "blue"),
        ("feed", "kraken"), ("keep", "long"), ("compare_with", "other_1m"), ("compare_with", "{tolerance_bps: 10}"),
        ("compare_with", "{dataset: other_1m, tolerance_bps: -1}"),
    ],
)  # fmt: skip
def test_a_wrong_field_of_a_dataset_is_refused(field, value):
    assert faults(universe(replaced(field, value)))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("interval", "2m"), ("symbols", "[]"), ("features", "[rsi_14, rsi_14]"),
        ("model", "logistic_regresion"), ("horizon", "0"), ("horizon", "true"), ("min_train_sessions", "1.5"),
        ("embargo_sessions", "-1"), ("capital", "0"), ("capital", "many"), ("costs", "5"),
        ("costs", "{commission_bps: -1}"), ("costs", "{comission_bps: 1}"), ("retrain", "weekly"), ("broker", "ibrk"),
    ],
)  # fmt: skip
def test_a_wrong_field_of_a_strategy_is_refused(field, value):
    assert faults(universe(strategies=replaced(field, value, STRATEGY)))


@pytest.mark.parametrize(
    "text",
    [
        "datasets: {}\n", "strategies: {}\n", "- a\n", "datasets: 5\n",
        universe(replaced("interval", "5m", replaced("feed", "binance_trades"))),
        universe(replaced("calendar", "XNYS", replaced("feed", "binance_trades"))),
        universe(replaced("interval", "1d", replaced("stale_after", "1h"))),
        universe(DATASET.replace("prices_1m", "Prices")),
        universe(DATASET.replace("    interval: 1m\n", "")),
        universe() + "outages: [{venue: prices_1m, from: 2021-04-25, to: 2021-04-26T00:00Z}]\n",
        universe() + "outages: [{venue: prices_1m, from: 2021-04-25T04:00Z}]\n",
        universe() + "feature_sets: {swing: rsi}\n",
    ],
)  # fmt: skip
def test_other_wrong_files_are_refused(text):
    assert faults(text)


def test_the_schema_is_part_of_the_package():
    assert SCHEMA_FILE.relative_to(CHECKOUT) == Path("quantlytic_assets/universe/universe.schema.json")
    assert '"universe/*.json"' in (CHECKOUT / "setup.py").read_text("utf-8")
