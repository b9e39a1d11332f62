"""Every test that asks for a `place` runs on each profile's parts."""

import pytest

from quantlytic_tests.storage.places import PROFILES, opened


@pytest.fixture(params=PROFILES)
def place(request, tmp_path):
    """A fresh installation of each profile, its topics of one partition."""
    with opened(request.param, tmp_path) as found:
        yield found
