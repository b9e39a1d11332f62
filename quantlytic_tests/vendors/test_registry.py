"""Vendors by name, where the settings say they are."""

import pytest

from quantlytic_assets.settings import Settings
from quantlytic_assets.vendors.protocol import BarRequest, VendorError
from quantlytic_assets.vendors.registry import VENDOR_NAMES, make_vendor, missing_keys
from quantlytic_tests.feeds.exchange import Exchange
from quantlytic_tests.feeds.recorded import trades
from quantlytic_tests.frames import utc
from quantlytic_tests.vendors.binance_archive import BinanceArchive
from quantlytic_tests.vendors.yahoo_server import YahooServer


@pytest.mark.parametrize("from_environment", [True, False])
@pytest.mark.parametrize("name", ["binance", "coinbase"])
def test_a_vendor_is_asked_where_the_settings_say(monkeypatch, name, from_environment):
    with Exchange({"A-USD": trades()}, 1, coinbase=name == "coinbase").serving() as exchange:
        settings = Settings(binance_rest=exchange.rest, coinbase_rest=exchange.rest)
        if from_environment:
            monkeypatch.setenv(f"QUANTLYTIC_{name.upper()}_REST", exchange.rest)
            settings = None
        request = BarRequest("d", "B-USD", "1m", "24/7", utc("2024-08-09"), utc("2024-08-09T01:00"))
        with pytest.raises(VendorError, match="Invalid symbol|NotFound"):
            make_vendor(name, settings).fetch(request)
        assert len(exchange.requests) == 1


def test_yahoo_and_binance_s_files_are_asked_where_the_settings_say():
    day = BarRequest("d", "B-USD", "1d", "24/7", utc("2024-08-09"), utc("2024-08-10"))
    at = day.start.date()
    with YahooServer(["A-USD"], calendar="24/7") as yahoo, BinanceArchive([], at, at) as files:
        settings = Settings(yahoo_url=yahoo.url, binance_files_url=files.url)
        with pytest.raises(VendorError, match="Yahoo knows no B-USD"):
            make_vendor("yahoo", settings).fetch(day)
        assert make_vendor("binance_files", settings).fetch(day).bars.is_empty()
        assert (len(yahoo.requests), len(files.paths)) == (1, 1)


@pytest.mark.parametrize("name", ["sample", "binance", "binance_files", "coinbase", "yahoo"])
def test_a_vendor_is_called_what_the_universe_calls_it(name):
    assert name in VENDOR_NAMES and make_vendor(name, Settings()).name == name


def test_the_public_addresses_are_the_default():
    settings = Settings()
    assert settings.yahoo_url == "https://query2.finance.yahoo.com"
    assert settings.binance_files_url == "https://data.binance.vision"
    assert settings.binance_rest == "https://data-api.binance.vision"
    assert settings.coinbase_rest == "https://api.exchange.coinbase.com"
    assert settings.binance_ws.startswith("wss://") and settings.coinbase_ws.startswith("wss://")


def test_a_vendor_without_its_key_is_named_with_the_variable_to_set():
    keys = missing_keys(VENDOR_NAMES, Settings())
    assert keys == {"alpha_vantage": "ALPHAVANTAGE_API_KEY", "twelve_data": "TWELVEDATA_API_KEY"}
    assert missing_keys(["twelve_data"], Settings(QUANTLYTIC_TWELVE_DATA_KEY="k")) == {}
