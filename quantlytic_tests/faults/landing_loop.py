"""A process that lands a dataset again and again, and ends with the first error."""

from __future__ import annotations

import sys
import time

from quantlytic_assets.resources import make_resources
from quantlytic_assets.settings import load_settings
from quantlytic_assets.universe.loading import load_universe


def land_forever(dataset: str) -> None:
    """Land what is new, a few times a second."""
    settings = load_settings()
    lander = make_resources(settings).lander(load_universe(settings.universe).datasets[dataset])
    while True:
        lander.land()
        time.sleep(0.2)


if __name__ == "__main__":
    land_forever(sys.argv[1])
