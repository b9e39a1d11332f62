"""Which vendors there are, by the names a universe file uses. Their code is loaded when one is made."""

from __future__ import annotations

from collections.abc import Iterable

from quantlytic_assets.settings import Settings, load_settings
from quantlytic_assets.vendors.protocol import Vendor

VENDOR_NAMES: tuple[str, ...] = (
    "sample",
    "binance",
    "binance_files",
    "coinbase",
    "yahoo",
    "alpha_vantage",
    "twelve_data",
    "ibkr",
)

# Vendor → the setting of its key, and the variable in which users have it.
_KEYS = {
    "alpha_vantage": ("alpha_vantage_key", "ALPHAVANTAGE_API_KEY"),
    "twelve_data": ("twelve_data_key", "TWELVEDATA_API_KEY"),
}


def missing_keys(names: Iterable[str], settings: Settings) -> dict[str, str]:
    """Those of the vendors whose key is missing: name → the variable to set."""
    wanted = {name: _KEYS[name] for name in names if name in _KEYS}
    return {name: variable for name, (field, variable) in wanted.items() if getattr(settings, field) is None}


def make_vendor(name: str, settings: Settings | None = None) -> Vendor:
    """A vendor by name, at the address that the settings (the environment's, where none are given) have for it.

    Raises `ValueError` for a name that is not in `VENDOR_NAMES`.
    """
    if name == "sample":
        from quantlytic_assets.vendors.sample import SampleVendor

        return SampleVendor()
    if name == "binance":
        from quantlytic_assets.vendors.binance import BinanceVendor

        return BinanceVendor((settings or load_settings()).binance_rest)
    if name == "coinbase":
        from quantlytic_assets.vendors.coinbase import CoinbaseVendor

        return CoinbaseVendor((settings or load_settings()).coinbase_rest)
    if name == "binance_files":
        from quantlytic_assets.vendors.binance_files import BinanceFilesVendor

        return BinanceFilesVendor((settings or load_settings()).binance_files_url)
    if name == "yahoo":
        from quantlytic_assets.vendors.yahoo import YahooVendor

        return YahooVendor((settings or load_settings()).yahoo_url)
    if name == "alpha_vantage":
        from quantlytic_assets.vendors.alpha_vantage import AlphaVantageVendor

        found = settings or load_settings()
        return AlphaVantageVendor(found.alpha_vantage_url, found.alpha_vantage_key, found.alpha_vantage_premium)
    if name == "twelve_data":
        from quantlytic_assets.vendors.twelve_data import TwelveDataVendor

        found = settings or load_settings()
        return TwelveDataVendor(found.twelve_data_url, found.twelve_data_key)
    if name == "ibkr":
        from quantlytic_assets.vendors.ibkr import IbkrVendor

        found = settings or load_settings()
        return IbkrVendor(found.ibkr_host, found.ibkr_port, found.ibkr_client_id)
    raise ValueError(f"unknown vendor {name!r}: there are {', '.join(VENDOR_NAMES)}")
