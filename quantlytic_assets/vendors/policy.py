"""How often, and how patiently, any vendor is asked: one retry policy around every `fetch`.

What is worth asking again, and when, is the vendor's own judgement (`VendorError.retryable`, `retry_after`), and so is
how much one question may ask for; nothing vendor-specific is here.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import polars as pl

from quantlytic_assets.market_data.bars import INTERVALS
from quantlytic_assets.vendors.protocol import BarRequest, Vendor, VendorError

if TYPE_CHECKING:
    from tenacity import RetryCallState


@dataclass(frozen=True)
class RetryPolicy:
    """At most `attempts` requests; waits start at `first_wait` seconds and double up to `longest_wait`, each with up
    to one `first_wait` of jitter on top, so that processes that failed together don't return together."""

    attempts: int = 5
    first_wait: float = 1.0
    longest_wait: float = 60.0


DEFAULT_POLICY = RetryPolicy()


def fetch_with_policy(
    vendor: Vendor,
    request: BarRequest,
    policy: RetryPolicy = DEFAULT_POLICY,
    on_request: Callable[[], None] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> pl.DataFrame:
    """The bars of `request`, asked for in as many `fetch`es as the vendor needs, each repeated after retryable errors.

    A vendor that says how long to wait is not asked before; when that is longer than the policy waits, its error is
    raised at once. `on_request` is called before each request made, the repeated ones too. Raises the last
    `VendorError` when the attempts are used up, and one that is not retryable at once; any other exception is a fault
    and passes.
    """
    from tenacity import Retrying, retry_if_exception, stop_after_attempt

    retrying = Retrying(
        retry=retry_if_exception(lambda error: _worth_it(error, policy)),
        stop=stop_after_attempt(policy.attempts),
        wait=lambda state: _wait(state, policy),
        sleep=sleep,
        reraise=True,
    )

    def ask(part: BarRequest) -> pl.DataFrame:
        if on_request is not None:
            on_request()
        return vendor.fetch(part)

    limit = vendor.traits(request.dataset).bars_per_request
    return pl.concat([retrying(ask, part) for part in split(request, limit)])


def split(request: BarRequest, bars: int | None) -> list[BarRequest]:
    """The request in parts of at most `bars` bars of its interval each, oldest first; None: whole."""
    if bars is None:
        return [request]
    parts, step, start = [], bars * INTERVALS[request.interval], request.start
    while start < request.end:
        parts.append(replace(request, start=start, end=min(start + step, request.end)))
        start += step
    return parts


def _worth_it(error: BaseException, policy: RetryPolicy) -> bool:
    return isinstance(error, VendorError) and error.retryable and (error.retry_after or 0) <= policy.longest_wait


def _wait(state: RetryCallState, policy: RetryPolicy) -> float:
    """Seconds before the next attempt: what the vendor asked for, or our own growing wait where that is longer."""
    jitter = random.uniform(0, policy.first_wait)
    error = state.outcome.exception() if state.outcome is not None else None
    asked = getattr(error, "retry_after", None) or 0.0
    doubling = policy.first_wait * 2 ** min(state.attempt_number - 1, 30)
    return max(min(doubling + jitter, policy.longest_wait), asked + jitter if asked else 0.0)
