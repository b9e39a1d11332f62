"""Which vendors there are, by the names a universe file uses. Their code is loaded when one is made."""

from __future__ import annotations

from quantlytic_assets.settings import Settings, load_settings
from quantlytic_assets.vendors.protocol import Vendor

VENDOR_NAMES: tuple[str, ...] = ("sample", "binance", "coinbase")


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
    raise ValueError(f"unknown vendor {name!r}: there are {', '.join(VENDOR_NAMES)}")
