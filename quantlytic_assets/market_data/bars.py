"""The shape of a bar at each layer, and nothing else: column names and types.

They follow from the declarations in `schemas`. What a row must satisfy is decided in `cleaning`; where rows are kept is
decided in `storage`.
"""

from __future__ import annotations

from quantlytic_assets.schemas import archive, clean

# A row of the archive: where on the bus the record stood, and which object and row it came from.
SOURCED_SCHEMA = archive.BARS.polars
# What an object of the archive holds.
ARCHIVE_SCHEMA = archive.BARS.without("source_object", "source_row")
# One bar as a vendor, feed or file gave it. Prices and volume may be null: what to do with such a row is decided
# when it is cleaned, not at the door.
RAW_SCHEMA = archive.BARS.without("bus_offset", "source_object", "source_row")

CLEAN_SCHEMA = clean.BARS.polars
QUARANTINE_SCHEMA = clean.QUARANTINE.polars
COVERAGE_SCHEMA = clean.COVERAGE.polars
