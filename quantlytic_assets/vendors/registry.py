"""Which vendors there are, by the names a universe file uses. Their code is loaded when one is made."""

from __future__ import annotations

from quantlytic_assets.vendors.protocol import Vendor

VENDOR_NAMES: tuple[str, ...] = ("sample",)


def make_vendor(name: str) -> Vendor:
    """A vendor by name. Raises `ValueError` for a name that is not in `VENDOR_NAMES`."""
    if name == "sample":
        from quantlytic_assets.vendors.sample import SampleVendor

        return SampleVendor()
    raise ValueError(f"unknown vendor {name!r}: there are {', '.join(VENDOR_NAMES)}")
