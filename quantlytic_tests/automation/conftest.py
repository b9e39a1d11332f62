"""What tests of conditions share; files that need another instance have their own."""

from collections.abc import Iterator

import dagster as dg
import pytest


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """An empty Dagster instance in memory."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance
