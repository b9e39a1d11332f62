"""The bench that orders are tried on."""

import pytest

from quantlytic_tests.brokers.bench import Bench


@pytest.fixture
def bench(tmp_path):
    with Bench(tmp_path).serving() as serving:
        yield serving
