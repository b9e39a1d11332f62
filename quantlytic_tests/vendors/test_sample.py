"""The sample vendor: the shipped bars, unchanged, through the protocol of any vendor."""

import json
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from quantlytic_assets.calendars.sessions import expected_bars
from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.settings import CHECKOUT
from quantlytic_assets.universe.loading import load_universe
from quantlytic_assets.vendors.protocol import BarRequest, VendorError
from quantlytic_assets.vendors.registry import VENDOR_NAMES, make_vendor
from quantlytic_assets.vendors.sample import SAMPLE_DATA, SampleVendor


def ask(dataset: str, symbol: str, interval: str, calendar: str, start: datetime, end: datetime) -> pl.DataFrame:
    request = BarRequest(dataset, symbol, interval, calendar, start.replace(tzinfo=UTC), end.replace(tzinfo=UTC))
    return SampleVendor().fetch(request).bars


def test_every_symbol_of_the_shipped_universe_is_served_for_its_whole_range():
    vendor = make_vendor("sample")
    for dataset in load_universe(CHECKOUT / "universe.yaml").datasets.values():
        grid = expected_bars(dataset.calendar, dataset.interval, dataset.first_session, dataset.last_session)
        for instrument in dataset.symbols:
            bars = vendor.fetch(
                BarRequest(
                    dataset.name,
                    instrument.symbol,
                    dataset.interval,
                    dataset.calendar,
                    grid["open_time"].min(),
                    grid["close_time"].max(),
                )
            ).bars
            assert bars.schema == RAW_SCHEMA
            assert bars["open_time"].is_sorted() and bars["open_time"].is_unique().all()
            missing = grid.join(bars, on=["open_time", "close_time"], how="anti")["open_time"].to_list()
            half_day_end = [datetime(2025, 7, 3, 16, minute, tzinfo=UTC) for minute in (50, 55)]
            known = {("equities_5m", "SPY"): half_day_end}
            assert missing == known.get((dataset.name, instrument.symbol), [])


def test_the_range_is_half_open_and_on_the_open_time():
    bars = ask("crypto_1m", "BTC-USD", "1m", "24/7", datetime(2025, 5, 10), datetime(2025, 5, 10, 0, 3))
    assert bars["open_time"].dt.minute().to_list() == [0, 1, 2]
    assert bars["open"].to_list() == [102941.9, 102955.8, 102966.7]
    assert (bars["close_time"] - bars["open_time"]).unique().to_list() == [timedelta(minutes=1)]
    assert bars["vendor"].unique().to_list() == ["sample"]
    assert bars["adjustment"].unique().to_list() == ["none"]
    assert (bars["fetched_at"] > datetime(2026, 1, 1, tzinfo=UTC)).all()


def test_a_range_that_the_sample_does_not_cover_is_an_answer_without_bars():
    bars = ask("crypto_1m", "BTC-USD", "1m", "24/7", datetime(2024, 1, 1), datetime(2024, 1, 2))
    assert bars.is_empty() and bars.schema == RAW_SCHEMA


def test_a_daily_bar_opens_and_closes_with_its_session_half_days_too():
    bars = ask("equities_1d", "AAPL", "1d", "XNYS", datetime(2018, 11, 21), datetime(2018, 11, 24))
    assert bars.select("open_time", "close_time").rows() == [
        (datetime(2018, 11, 21, 14, 30, tzinfo=UTC), datetime(2018, 11, 21, 21, tzinfo=UTC)),
        (datetime(2018, 11, 23, 14, 30, tzinfo=UTC), datetime(2018, 11, 23, 18, tzinfo=UTC)),
    ]
    assert bars["adjustment"].unique().to_list() == ["split"]


def test_defects_of_the_sources_are_served_as_they_are():
    nulls = ask("yields_1d", "^TNX", "1d", "XNYS", datetime(2016, 11, 11), datetime(2016, 11, 12))
    assert nulls.select("open", "high", "low", "close", "volume").row(0) == (None,) * 5
    spy = ask("equities_1d", "SPY", "1d", "XNYS", datetime(2015, 3, 5), datetime(2015, 3, 6))
    assert spy["open"][0] < spy["low"][0]
    early = ask("equities_5m", "SPY", "5m", "XNYS", datetime(2025, 6, 4, 8), datetime(2025, 6, 4, 9))
    assert len(early) > 0 and early["volume"].sum() == 0


def test_a_date_without_a_session_gets_its_local_midnight(tmp_path):
    days = pl.DataFrame({"symbol": ["A", "A"], "session": [date(2024, 7, 4), date(2024, 7, 5)]})
    days.with_columns(pl.lit(1.0).alias(name) for name in ("open", "high", "low", "close", "volume")).write_parquet(
        tmp_path / "a.parquet"
    )
    entry = {"file": "a.parquet", "interval": "1d", "adjustment": "none", "omits_empty_bars": True, "symbols": ["A"]}
    (tmp_path / "index.json").write_text(json.dumps({"odd_1d": entry}))
    vendor = SampleVendor(tmp_path)
    bars = vendor.fetch(
        BarRequest("odd_1d", "A", "1d", "XNYS", datetime(2024, 7, 4, tzinfo=UTC), datetime(2024, 7, 6, tzinfo=UTC))
    ).bars
    assert bars.select("open_time", "close_time").rows() == [
        (datetime(2024, 7, 4, 4, tzinfo=UTC), datetime(2024, 7, 5, 4, tzinfo=UTC)),
        (datetime(2024, 7, 5, 13, 30, tzinfo=UTC), datetime(2024, 7, 5, 20, tzinfo=UTC)),
    ]
    assert vendor.traits("odd_1d").omits_empty_bars


def test_a_dataset_of_another_name_can_use_the_sample():
    bars = ask("big_tech", "MSFT", "1d", "XNYS", datetime(2018, 1, 1), datetime(2018, 2, 1))
    assert len(bars) == 21


@pytest.mark.parametrize(
    ("symbol", "interval", "named"),
    [("NVDA", "1d", "equities_1d: AAPL, MSFT"), ("BTC-USD", "5m", "equities_5m: AAPL"), ("AAPL", "1h", "1m, 5m, 1d")],
)
def test_what_the_sample_lacks_is_an_error_not_worth_repeating_that_names_what_it_has(symbol, interval, named):
    with pytest.raises(VendorError, match=named) as caught:
        ask("mine", symbol, interval, "XNYS", datetime(2018, 1, 1), datetime(2018, 2, 1))
    assert not caught.value.retryable


def test_one_answer_settles_a_hole_for_files_never_change():
    assert SampleVendor().traits("equities_5m").attempts_before_hole == 1
    assert SampleVendor().traits("a dataset it never heard of").attempts_before_hole == 1


def test_the_shipped_data_are_small_and_each_file_names_its_source_and_licence():
    sources = (SAMPLE_DATA / "SOURCES.md").read_text("utf-8")
    files = [path for path in SAMPLE_DATA.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 5_000_000
    for path in files:
        if path.suffix in (".parquet", ".txt"):
            assert path.name in sources


def test_only_registered_vendors_can_be_made():
    assert all(make_vendor(name).name == name for name in VENDOR_NAMES)
    with pytest.raises(ValueError, match="unknown vendor 'yahho'"):
        make_vendor("yahho")


@pytest.mark.parametrize("end", [datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2)])
def test_a_request_for_nothing_or_without_a_zone_can_not_be_made(end):
    with pytest.raises(ValueError):
        BarRequest("d", "s", "1d", "XNYS", datetime(2024, 1, 1, tzinfo=UTC), end)
