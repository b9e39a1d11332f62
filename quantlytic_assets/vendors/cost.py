"""What asking for something will cost: requests, weight against the limits, and time, before anybody is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quantlytic_assets.vendors.protocol import Limit

# What an answer takes on an ordinary line; only to have an idea of the whole.
_SECONDS_AN_ANSWER = 0.3


@dataclass(frozen=True)
class Cost:
    """The cost of one vendor's part of a plan. `seconds` is an estimate that includes waits for the rate limits."""

    vendor: str
    requests: int
    weight: int
    seconds: float


def seconds_for(
    requests: int, weight: int, limits: Sequence[Limit], left: Mapping[int, int], at_once: int = 1
) -> float:
    """About how many seconds so many requests of so much weight in all take, `at_once` of them at a time.

    `left`: weight that each window (in seconds) still allows. A used-up window is taken to be free again as a whole
    after its length, so this is an upper bound of the waits, but for what others ask meanwhile.
    """
    waits = [limit.seconds * -(-(weight - left[limit.seconds]) // limit.weight) for limit in limits]
    return max([0.0, *map(float, waits)]) + requests * _SECONDS_AN_ANSWER / at_once
