"""The universe file: what is read from it, and that a wrong one gets every mistake named at once."""

from datetime import date, timedelta
from pathlib import Path

import pytest

from quantlytic_assets.settings import CHECKOUT
from quantlytic_assets.trading.engine.settings import Costs
from quantlytic_assets.universe.loading import load_universe
from quantlytic_assets.universe.models import Instrument, Outage, UniverseError
from quantlytic_tests.frames import utc

DATASET = """
  prices_1m:
    calendar: 24/7
    interval: 1m
    first_session: 2025-05-10
    last_session: 2025-05-31
    vendors: [sample]
    feature_intervals: [5m, 1h]
    symbols: [BTC-USD, {symbol: SOL-USD, from: 2025-05-12, to: 2025-05-30}]
"""
STRATEGY = """
  swing:
    dataset: prices_1m
    interval: 5m
    model: logistic_regression
"""


@pytest.fixture
def write(tmp_path):
    def write_universe(datasets: str = DATASET, strategies: str = "") -> Path:
        path = tmp_path / "universe.yaml"
        path.write_text(f"datasets:{datasets}" + (f"strategies:{strategies}" if strategies else ""), "utf-8")
        return path

    return write_universe


def mistakes(path: Path) -> list[str]:
    with pytest.raises(UniverseError) as caught:
        load_universe(path)
    assert caught.value.path == path
    assert str(caught.value) == "\n".join(caught.value.mistakes)
    assert all("\n" not in line for line in caught.value.mistakes)
    return caught.value.mistakes


def without_line(mistake: str, path: Path, line: int) -> str:
    """The mistake without where it stands in the file, which is checked."""
    assert mistake.endswith(f" ({path}:{line})"), mistake
    return mistake.removesuffix(f" ({path}:{line})")


def replaced(field: str, value: str, within: str = DATASET) -> str:
    """The declaration with one field's value replaced (or the field added)."""
    lines = [line for line in within.splitlines() if not line.startswith(f"    {field}:")]
    return "\n".join([*lines, f"    {field}: {value}", ""])


def only_mistake(path: Path) -> str:
    found = mistakes(path)
    assert len(found) == 1, found
    return found[0]


def test_the_shipped_universe_declares_the_four_sample_datasets_and_two_kinds_of_model():
    universe = load_universe(CHECKOUT / "universe.yaml")
    assert list(universe.datasets) == ["crypto_1m", "equities_5m", "equities_1d", "yields_1d"]
    assert {name: len(one.symbols) for name, one in universe.datasets.items()} == {
        "crypto_1m": 5,
        "equities_5m": 3,
        "equities_1d": 14,
        "yields_1d": 3,
    }
    assert {one.model for one in universe.models.values()} == {"logistic_regression", "gradient_boosting"}
    assert {one.dataset for one in universe.strategies.values()} == {"equities_1d"}


def test_fields_left_out_get_the_documented_defaults(write):
    universe = load_universe(write(replaced("last_session", "2027-05-31"), STRATEGY))
    dataset, strategy = universe.datasets["prices_1m"], universe.strategies["swing"]
    assert (dataset.partition, dataset.venue, dataset.out_of_session) == ("session", "prices_1m", "drop")
    assert dataset.incomplete_bars == "drop"
    assert dataset.delay == timedelta(0)
    assert dataset.symbols == (
        Instrument("BTC-USD", None, None),
        Instrument("SOL-USD", date(2025, 5, 12), date(2025, 5, 30)),
    )
    assert strategy.symbols == ("BTC-USD", "SOL-USD")
    assert strategy.features is None
    assert (strategy.horizon, strategy.retrain, strategy.broker) == (1, "yearly", "simulated")
    assert strategy.settings.costs == Costs(commission_bps=1.0, slippage_bps=2.0)


def test_a_dataset_may_have_a_live_feed_and_a_symbol_names_of_its_vendors(write):
    symbols = "[BTC-USD, {symbol: ETH-USD, names: {binance: ETHUSDC, coinbase: ETH-USDC}}]"
    text = replaced("feed", "binance_trades", replaced("symbols", symbols))
    dataset = load_universe(write(text)).datasets["prices_1m"]
    assert dataset.feed == "binance_trades"
    assert [dict(one.names) for one in dataset.symbols] == [{}, {"binance": "ETHUSDC", "coinbase": "ETH-USDC"}]
    assert load_universe(write()).datasets["prices_1m"].feed is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"feed": "kraken"}, "datasets.prices_1m.feed: 'kraken' is not known"),
        ({"feed": "binance_klines", "interval": "5m"}, "datasets.prices_1m.feed: live feeds give 1m bars"),
        ({"feed": "binance_klines", "calendar": "XNYS"}, "datasets.prices_1m.feed: live feeds give 1m bars"),
        ({"symbols": "[{symbol: A, names: {binanse: AX}}]"}, "datasets.prices_1m.symbols[0].names.binanse: unknown"),
        ({"symbols": "[{symbol: A, names: AX}]"}, "datasets.prices_1m.symbols[0].names: is 'AX'"),
    ],
)
def test_a_wrong_feed_or_name_is_one_mistake(write, changes, said):
    text = DATASET
    for field, value in changes.items():
        text = replaced(field, value, text)
    assert only_mistake(write(text)).startswith(said)


def test_a_dataset_may_use_bars_that_are_incomplete(write):
    assert load_universe(write(replaced("incomplete_bars", "keep"))).datasets["prices_1m"].incomplete_bars == "keep"


def test_a_daily_dataset_is_partitioned_by_month_open_ended_and_has_features_at_its_own_interval(write):
    text = """
  prices_1d: {calendar: XNYS, interval: 1d, first_session: 2020-01-02, vendors: [], symbols: [AAPL]}
"""
    dataset = load_universe(write(text)).datasets["prices_1d"]
    assert (dataset.partition, dataset.last_session, dataset.feature_intervals) == ("month", None, ("1d",))
    assert dataset.vendors == ()


def test_ten_mistakes_are_ten_lines_and_a_date_that_yaml_rejects_is_one_of_them(write):
    datasets = """
  prices_1m:
    calendar: XNYSE
    interval: 2m
    partition: week
    first_session: 2024-13-45
    vendors: [sampel]
    delay: soon
    symbols: [AAPL, AAPL]
    colour: blue
"""
    strategies = """
  swing:
    dataset: price_1m
    interval: 1d
    model: logistic_regresion
"""
    found = mistakes(write(datasets, strategies))
    # In the order of the file, each with its line.
    assert [(line.split(":")[0], int(line.rpartition(":")[2].rstrip(")"))) for line in found] == [
        ("datasets.prices_1m.calendar", 3),
        ("datasets.prices_1m.interval", 4),
        ("datasets.prices_1m.partition", 5),
        ("datasets.prices_1m.first_session", 6),
        ("datasets.prices_1m.vendors[0]", 7),
        ("datasets.prices_1m.delay", 8),
        ("datasets.prices_1m.symbols[1]", 9),
        ("datasets.prices_1m.colour", 10),
        ("strategies.swing.dataset", 13),
        ("strategies.swing.model", 15),
    ]
    text = "\n".join(found)
    assert "'2024-13-45' is not a date (month must be in 1..12)" in text
    assert "did you mean 'XNYS'?" in text
    assert "did you mean 'sample'?" in text
    assert "did you mean 'prices_1m'?" in text
    assert "did you mean 'logistic_regression'?" in text


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("calendar", "NYZE", "datasets.prices_1m.calendar: 'NYZE' is no known calendar"),
        ("interval", "true", "datasets.prices_1m.interval: 'true', which YAML reads as true is not known"),
        ("interval", "", "datasets.prices_1m.interval: is empty, it should be one of 1m, 5m, 15m, 1h, 1d"),
        ("out_of_session", "maybe", "it should be one of drop, keep"),
        ("incomplete_bars", "keeep", "incomplete_bars: 'keeep' is not known, it should be one of drop, keep, did you"),
        ("first_session", "2025-05-10 09:30:00", "has a time of day, write the date alone: 2025-05-10"),
        ("first_session", "20250510", "'20250510' is not a date, write one as YYYY-MM-DD"),
        ("first_session", "0205-05-10", "0205-05-10 is no year of market data"),
        ("first_session", "'2025-02-30'", "is not a date (day is out of range for month)"),
        ("last_session", "2025-05-09", "2025-05-09 is before first_session 2025-05-10"),
        ("replay_from", "2025-05-10", "2025-05-10 leaves nothing to ask for"),
        ("replay_from", "2026-01-01", "2026-01-01 is after last_session"),
        ("delay", "1:30", "datasets.prices_1m.delay: '1:30' is not a time span"),
        ("delay", "5", "it should be a length of time such as 0s, 5m or 2h"),
        ("vendors", "sample", "is 'sample', it should be a list of vendors"),
        ("vendors", "[sample, sample]", "datasets.prices_1m.vendors[1]: 'sample' is listed twice"),
        ("symbols", "[]", "datasets.prices_1m.symbols: is empty"),
        ("symbols", "{A: 1}", "is a mapping, it should be a list of symbols"),
        ("symbols", "[ON]", 'symbols[0]: YAML reads ON as true, quote it: "ON"'),
        ("symbols", "[NULL]", 'symbols[0]: YAML reads NULL as nothing, quote it: "NULL"'),
        ("symbols", "[000001]", 'symbols[0]: YAML reads 000001 as 1, quote it: "000001"'),
        ("symbols", "[1.5]", 'symbols[0]: YAML reads 1.5 as 1.5, quote it: "1.5"'),
        ("symbols", "[[A]]", "symbols[0]: is a list, it should be a symbol"),
        ("symbols", "['A B']", "symbols[0]: 'A B' is no usable symbol"),
        ("symbols", "[{symbol: A, from: 2025-05-09}]", "symbols[0].from: 2025-05-09 is before the dataset's first"),
        ("symbols", "[{symbol: A, to: 2025-06-01}]", "symbols[0].to: 2025-06-01 is after the dataset's last"),
        ("symbols", "[{symbol: A, from: 2025-05-20, to: 2025-05-19}]", "symbols[0].to: 2025-05-19 is before from"),
        ("symbols", "[{from: 2025-05-20}]", "symbols[0].symbol: missing"),
        ("symbols", "[{symbol: A, until: 2025-05-20}]", "symbols[0].until: unknown field"),
        ("feature_intervals", "[]", "feature_intervals: is empty"),
        ("feature_intervals", "[30m]", "feature_intervals[0]: '30m' is not an interval"),
        ("venue", "[x]", "venue: is a list, it should be the name of the market place"),
    ],
)
def test_one_wrong_field_of_a_dataset_is_one_line_that_says_what_would_be_right(write, field, value, expected):
    assert expected in only_mistake(write(replaced(field, value)))


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("interval", "1m", "strategies.swing.interval: 1m is not among the feature_intervals of prices_1m"),
        ("symbols", "[BTC-USDT]", "symbols[0]: 'BTC-USDT' is not in dataset prices_1m, did you mean 'BTC-USD'?"),
        ("symbols", "[]", "strategies.swing.symbols: is empty"),
        ("features", "[rsi_15]", "features[0]: 'rsi_15' is no feature of prices_1m, did you mean 'rsi_14'?"),
        ("features", "[rsi_14, rsi_14]", "features[1]: 'rsi_14' is listed twice"),
        ("horizon", "0", "horizon: '0' should be a whole number from 1 to 10000"),
        ("horizon", "true", "horizon: 'true', which YAML reads as true should be a whole number"),
        ("min_train_sessions", "1.5", "min_train_sessions: '1.5' should be a whole number"),
        ("embargo_sessions", "-1", "embargo_sessions: '-1' should be a whole number from 0"),
        ("capital", "0", "capital: '0' should be a number above 0"),
        ("capital", ".nan", "capital: '.nan' should be a number above 0"),
        ("capital", "yes", "capital: 'yes', which YAML reads as true should be a number"),
        ("costs", "5", "costs: is '5', it should be a mapping"),
        ("costs", "{commission_bps: -1}", "strategies.swing.costs.commission_bps: '-1' should be a number from 0"),
        ("costs", "{comission_bps: 1}", "costs.comission_bps: unknown field, did you mean 'commission_bps'?"),
        ("retrain", "weekly", "retrain: 'weekly' is not known, it should be one of monthly, yearly"),
        ("broker", "ibrk", "broker: 'ibrk' is not known, it should be simulated or ibkr"),
    ],
)
def test_one_wrong_field_of_a_strategy_is_one_line_that_says_what_would_be_right(write, field, value, expected):
    assert expected in only_mistake(write(strategies=replaced(field, value, STRATEGY)))


def test_mistakes_inside_lists_and_mappings_hide_none_beside_them(write):
    datasets = """
  prices_1m:
    calendar: 24/7
    interval: 1m
    first_session: 2025-05-10
    vendors: [sampel, sample, sample]
    feature_intervals: [7m, 5m, 5m]
    symbols:
      - [A]
      - {symbol: B, from: 2025-05-01, untill: 2025-06-01}
      - {symbol: C, names: {binance: [x], coinbasse: yy}}
      - C
      - D E
      - {from: soon}
"""
    strategies = """
  swing:
    dataset: prices_1m
    interval: 15m
    model: logistic_regression
    symbols: [C, {}, Z]
    costs: {commission_bps: -1, slipage_bps: 2}
"""
    path = write(datasets, strategies)
    path.write_text(path.read_text() + "outages:\n  - {venue: prices_1, from: 2025-05-10}\n  - 5\n")
    found = [line.removesuffix(")").replace(f" ({path}", "").rpartition(":") for line in mistakes(path)]
    assert [(said.split(":")[0], int(line)) for said, _, line in found] == [
        ("datasets.prices_1m.vendors[0]", 6),
        ("datasets.prices_1m.vendors[2]", 6),
        ("datasets.prices_1m.feature_intervals[0]", 7),
        ("datasets.prices_1m.feature_intervals[2]", 7),
        ("datasets.prices_1m.symbols[0]", 9),
        ("datasets.prices_1m.symbols[1].untill", 10),
        ("datasets.prices_1m.symbols[1].from", 10),
        ("datasets.prices_1m.symbols[2].names.binance", 11),
        ("datasets.prices_1m.symbols[2].names.coinbasse", 11),
        ("datasets.prices_1m.symbols[3]", 12),
        ("datasets.prices_1m.symbols[4]", 13),
        ("datasets.prices_1m.symbols[5].symbol", 14),
        ("datasets.prices_1m.symbols[5].from", 14),
        ("strategies.swing.interval", 18),
        ("strategies.swing.symbols[1]", 20),
        ("strategies.swing.symbols[2]", 20),
        ("strategies.swing.costs.commission_bps", 21),
        ("strategies.swing.costs.slipage_bps", 21),
        ("outages[0].from", 23),
        ("outages[0].to", 23),
        ("outages[0].venue", 23),
        ("outages[1]", 24),
    ]


def test_a_strategy_with_too_short_a_history_is_a_mistake_of_the_file(write):
    path = write(strategies=STRATEGY + "    min_train_sessions: 30\n")
    found = without_line(only_mistake(path), path, 15)
    assert found.startswith("strategies.swing.min_train_sessions: 30 sessions to train on need ")
    assert "but prices_1m has 22 in all; lower it" in found
    # A field that is left out is looked for where it could stand.
    assert without_line(only_mistake(write(strategies=STRATEGY)), path, 11).startswith("strategies.swing.min_train")
    # Beside other mistakes too, unless those are its own or its dataset's.
    other = "\n  other_1m: {calendar: 24/7, interval: 7m, first_session: 2025-05-10, vendors: [], symbols: [A]}\n"
    found = mistakes(write(DATASET + other, STRATEGY))
    assert [line.split(":")[0] for line in found] == [
        "datasets.other_1m.interval", "strategies.swing.min_train_sessions",
    ]  # fmt: skip


def test_a_dataset_that_keeps_too_little_for_a_strategy_is_a_mistake_of_the_file(write):
    datasets = """
  prices_1d: {calendar: XNYS, interval: 1d, first_session: 2010-01-04, vendors: [], symbols: [A], keep: 700d}
"""
    path = write(datasets, STRATEGY.replace("prices_1m", "prices_1d").replace("5m", "1d"))
    found = without_line(only_mistake(path), path, 2)
    assert found.startswith("datasets.prices_1d.keep: 700d is too short for strategies.swing, which trains on ")


@pytest.mark.parametrize("key", ["feature_sets", "plugins", "label"])
def test_what_does_not_exist_yet_is_not_accepted(write, key):
    assert ": unknown field" in only_mistake(write(strategies=f"{STRATEGY}    {key}: x\n"))


def test_a_merge_of_something_else_is_a_mistake(write):
    path = write(DATASET + "    <<: [5]\n")
    assert without_line(only_mistake(path), path, 10) == (
        "datasets.prices_1m.<<: merges something else than a mapping, write `<<: *anchor`"
    )


def test_features_finer_than_the_bars_are_rejected(write):
    text = replaced("feature_intervals", "[5m, 1h]", DATASET.replace("interval: 1m", "interval: 15m", 1))
    assert "feature_intervals[0]: 5m is finer than the bars (15m)" in only_mistake(write(text))


def test_a_misspelt_field_is_one_mistake_and_not_a_missing_field_too(write):
    path = write(DATASET.replace("calendar:", "calender:"))
    found = without_line(only_mistake(path), path, 3)
    assert found == "datasets.prices_1m.calender: unknown field, did you mean 'calendar'?"


def test_a_field_given_twice_is_a_mistake_although_yaml_keeps_the_last(write):
    path = write(DATASET + "    interval: 1m\n")
    found = without_line(only_mistake(path), path, 10)
    assert found == "datasets.prices_1m.interval: given twice (lines 4 and 10), keep one of them"


def test_anchors_and_merges_work_and_may_be_overridden(write):
    more = """
  others_1m:
    <<: *base
    symbols: [ETH-USD]
"""
    universe = load_universe(write(DATASET.replace("prices_1m:", "prices_1m: &base") + more))
    assert [one.symbol for one in universe.datasets["others_1m"].symbols] == ["ETH-USD"]
    assert universe.datasets["others_1m"].interval == "1m"


def test_a_number_that_can_only_mean_itself_is_a_symbol(write):
    universe = load_universe(write(replaced("symbols", "[600519, '000001', ^TNX]")))
    assert [one.symbol for one in universe.datasets["prices_1m"].symbols] == ["600519", "000001", "^TNX"]


@pytest.mark.parametrize("name", ["Prices", "1m", "prices-1m", "../prices", "préis", "a" * 64])
def test_a_name_that_can_not_be_an_asset_key_is_rejected(write, name):
    assert "no usable name" in only_mistake(write(DATASET.replace("prices_1m", name)))


def test_a_strategy_may_not_have_the_name_of_a_dataset(write):
    found = only_mistake(write(strategies=STRATEGY.replace("swing", "prices_1m")))
    assert found.startswith("strategies.prices_1m: a dataset has this name too")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "the file is empty"),
        (b"# nothing\n", "the file is empty"),
        (b"- a\n", "holds a list; it should be a mapping"),
        (b"datasets: {a: [}\n", "line 1, column 16: not valid YAML"),
        (b"datasets:\n\tx: 1\n", "line 2, column 1: not valid YAML"),
        (b"datasets: \xff\n", "not UTF-8 text (byte 10)"),
        (b"a: \x07\n", "not valid YAML"),
        (b"[" * 5000, "nested too deeply"),
    ],
)
def test_a_file_that_is_no_universe_at_all_gives_one_clear_message(tmp_path, content, expected):
    path = tmp_path / "universe.yaml"
    path.write_bytes(content)
    found = only_mistake(path)
    assert expected in found
    assert found.startswith(str(path))


def test_a_missing_file_says_how_to_name_another(tmp_path):
    assert "QUANTLYTIC_UNIVERSE" in only_mistake(tmp_path / "none.yaml")


def test_an_anchor_that_holds_itself_is_a_mistake_and_no_endless_loop(tmp_path):
    path = tmp_path / "universe.yaml"
    path.write_text("datasets: &a {x: *a}\n")
    assert any("nested too deeply" in line for line in mistakes(path))


@pytest.mark.parametrize("content", ["strategies: {}\n", "datasets: {}\n", "datasets: 5\n", "datasets:\n"])
def test_a_universe_without_datasets_is_rejected(tmp_path, content):
    path = tmp_path / "universe.yaml"
    path.write_text(content)
    assert only_mistake(path).startswith("datasets: ")


def test_a_value_of_several_lines_stays_on_one_line_of_the_message(write):
    assert "'a b'" in only_mistake(write(replaced("interval", '"a\\nb"')))


OUTAGES = """outages:
  - {venue: binance, from: 2021-04-25T04:02Z, to: "2021-04-25T08:45:00+00:00", source: https://example.com}
  - {venue: binance, from: 2020-02-19T13:40:00+02:00, to: 2020-02-19T17:00Z}
  - {venue: elsewhere, from: 2020-02-19T11:40Z, to: 2020-02-19T17:00Z}
"""


def test_known_outages_belong_to_the_datasets_of_their_venue(write):
    at_binance = replaced("venue", "binance")
    elsewhere = replaced("venue", "elsewhere").replace("prices_1m", "other")
    path = write(at_binance + at_binance.replace("prices_1m", "also_1m") + elsewhere)
    path.write_text(path.read_text() + OUTAGES)
    datasets = load_universe(path).datasets
    assert (
        datasets["prices_1m"].outages
        == datasets["also_1m"].outages
        == (
            Outage("binance", utc("2020-02-19T11:40"), utc("2020-02-19T17:00")),
            Outage("binance", utc("2021-04-25T04:02"), utc("2021-04-25T08:45"), "https://example.com"),
        )
    )
    assert [one.venue for one in datasets["other"].outages] == ["elsewhere"]


@pytest.mark.parametrize(
    ("outage", "said"),
    [
        ("{venue: prices_1m, from: 2021-04-25, to: 2021-04-26T00:00Z}", ".from: '2021-04-25' should be a time with"),
        ("{venue: prices_1m, from: 2021-04-25T04:00, to: 2021-04-26T00:00Z}", ".from: '2021-04-25T04:00' should be"),
        ("{venue: prices_1m, from: 2021-04-25T04:00Z, to: 2021-04-25T04:00Z}", ".to: 2021-04-25T04:00Z is not after"),
        ("{venue: prices, from: 2021-04-25T04:00Z, to: 2021-04-25T05:00Z}", ".venue: no dataset is of venue 'prices',"),
        ("{venue: prices_1m, from: 2021-04-25T04:00Z}", ".to: missing"),
        ("prices_1m", ": is 'prices_1m', it should be {venue"),
    ],
)
def test_a_wrong_outage_is_said(write, outage, said):
    path = write()
    path.write_text(path.read_text() + f"outages: [{outage}]\n")
    assert only_mistake(path).startswith(f"outages[0]{said}")


def test_how_long_sessions_are_kept_and_when_a_feed_is_stale(write):
    dataset = load_universe(write()).datasets["prices_1m"]
    assert (dataset.keep, dataset.stale_after, dataset.outages) == (None, None, ())
    assert load_universe(write(replaced("keep", "550d"))).datasets["prices_1m"].keep == timedelta(days=550)
    fed = load_universe(write(replaced("feed", "binance_trades"))).datasets["prices_1m"]
    assert fed.stale_after == timedelta(minutes=15)
    assert load_universe(write(replaced("stale_after", "1h"))).datasets["prices_1m"].stale_after == timedelta(hours=1)
    for field, value, said in (
        ("keep", "12h", "keep: is too short, take 1d or more"), ("keep", "long", "keep: 'long' is not a time span"),
        ("stale_after", "0s", "stale_after: is too short, take 1m or more"),
        ("keep", "999999d", "keep: is too long, take 36500d or less, or leave it out"),
    ):  # fmt: skip
        assert only_mistake(write(replaced(field, value))).startswith(f"datasets.prices_1m.{said}")
    daily = DATASET.replace("1m\n", "1d\n").replace("[5m, 1h]", "[1d]") + "    stale_after: 1h\n"
    assert "no bar while its session runs" in only_mistake(write(daily))


OTHER = DATASET.replace("prices_1m", "other_1m")


def test_a_dataset_is_compared_with_another_one(write):
    compared = replaced("compare_with", "{dataset: other_1m, tolerance_bps: 2.5}")
    dataset = load_universe(write(compared + OTHER)).datasets["prices_1m"]
    assert (dataset.compare_with.dataset, dataset.compare_with.tolerance_bps) == ("other_1m", 2.5)
    by_default = load_universe(write(replaced("compare_with", "{dataset: other_1m}") + OTHER))
    assert by_default.datasets["prices_1m"].compare_with.tolerance_bps == 10
    assert by_default.datasets["other_1m"].compare_with is None


@pytest.mark.parametrize(
    ("value", "other", "mistake"),
    [
        ("other_1m", OTHER, "compare_with: is 'other_1m', it should be {dataset: …, tolerance_bps: 10}"),
        ("{tolerance_bps: 10}", OTHER, "compare_with.dataset: missing"),
        ("{dataset: prices_1m}", OTHER, "compare_with.dataset: 'prices_1m' is not another dataset"),
        ("{dataset: othr_1m}", OTHER, "'othr_1m' is not another dataset, did you mean 'other_1m'?"),
        ("{dataset: other_1m}", "", "compare_with.dataset: 'other_1m' is not another dataset, declare another one"),
        ("{dataset: other_1m, tolerance_bps: -1}", OTHER, "compare_with.tolerance_bps: '-1' should be a number from 0"),
        ("{dataset: other_1m, tolerance: 1}", OTHER, "compare_with.tolerance: unknown field"),
        (
            "{dataset: other_1m}",
            OTHER.replace("interval: 1m", "interval: 5m"),
            "compare_with.dataset: other_1m has 5m bars and prices_1m 1m ones",
        ),
        (
            "{dataset: other_1m}",
            OTHER.replace("BTC-USD", "ETH-USD").replace("SOL-USD", "ADA-USD"),
            "compare_with.dataset: other_1m has none of the symbols of prices_1m",
        ),
    ],
)
def test_a_comparison_that_can_t_be_made_is_a_mistake(write, value: str, other: str, mistake: str):
    assert mistake in only_mistake(write(replaced("compare_with", value) + other))


def test_alerts_are_read_with_their_defaults(write):
    path = write()
    path.write_text(
        path.read_text()
        + "alerts:\n"
        + "  - {dataset: prices_1m, when: rsi_14 < 30}\n"
        + "  - {dataset: prices_1m, symbols: [BTC-USD], interval: 1h, when: close crosses sma_200, cooldown: 1d}\n"
    )
    first, second = load_universe(path).alerts
    assert (first.symbols, first.interval, first.cooldown) == (("BTC-USD", "SOL-USD"), "5m", timedelta(hours=1))
    assert (second.symbols, second.interval, second.cooldown) == (("BTC-USD",), "1h", timedelta(days=1))


def test_each_mistake_of_alerts_is_named(write):
    path = write(strategies="\n  swing: {dataset: prices_1m, interval: 5m, rule: buy_and_hold}\n")
    path.write_text(
        path.read_text()
        + "alerts:\n"
        + "  - {dataset: prices_1d, when: rsi_14 < 30}\n"
        + "  - {dataset: prices_1m, symbols: [BTC], interval: 1d, when: rsi_15 < 30}\n"
        + "  - {when: close > 5}\n"
        + "  - {when: drawdown(swinging) > 10%, dataset: prices_1m}\n"
        + "  - {dataset: prices_1m, when: close is 5}\n"
        + "  - {dataset: prices_1m}\n"
    )
    said = [one.rsplit(" (", 1)[0] for one in mistakes(path)]
    assert said == [
        "alerts[0].dataset: there is no dataset 'prices_1d', did you mean 'prices_1m'?",
        "alerts[1].symbols[0]: prices_1m has no symbol 'BTC', did you mean 'BTC-USD'?",
        "alerts[1].interval: prices_1m has features at 5m, 1h, not at 1d",
        "alerts[1].when: prices_1m has no column 'rsi_15', did you mean 'rsi_14'?; its `features` say which it has",
        "alerts[2]: dataset is missing, take one of prices_1m",
        "alerts[3].dataset: does not go with drawdown(strategy), leave it out",
        "alerts[3].when: there is no strategy 'swinging', did you mean 'swing'?",
        "alerts[4].when: 'is' stands where <, <=, >, >= or crosses should be, as in rsi_14 < 30, close crosses above "
        "sma_200, drawdown(cross_1d) > 10% or staleness > 5m",
        "alerts[5].when: missing, add it: it has no default",
    ]
