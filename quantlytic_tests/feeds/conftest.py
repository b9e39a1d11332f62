"""The buses that feeds are tried on: each profile's own."""

import pytest

from quantlytic_tests.storage.places import PROFILES, opened


@pytest.fixture(params=PROFILES)
def bus(request, tmp_path):
    """An empty bus of each profile."""
    with opened(request.param, tmp_path, kafka_partitions=2) as place:
        yield place.resources.bus
