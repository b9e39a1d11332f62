"""The figures are tested on the parts of each profile."""

from quantlytic_tests.storage.conftest import place

__all__ = ["place"]
