"""Vendors by name, where the settings say they are."""

import pytest

from quantlytic_assets.settings import Settings
from quantlytic_assets.vendors.protocol import BarRequest, VendorError
from quantlytic_assets.vendors.registry import make_vendor
from quantlytic_tests.feeds.exchange import Exchange
from quantlytic_tests.feeds.recorded import trades
from quantlytic_tests.frames import utc


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


def test_the_public_addresses_are_the_default():
    settings = Settings()
    assert settings.binance_rest == "https://data-api.binance.vision"
    assert settings.coinbase_rest == "https://api.exchange.coinbase.com"
    assert settings.binance_ws.startswith("wss://") and settings.coinbase_ws.startswith("wss://")
