"""How often, and how patiently, any vendor is asked: one retry policy around every `fetch`.

What is worth asking again is the vendor's own judgement (`VendorError.retryable`); nothing vendor-specific is here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from quantlytic_assets.vendors.protocol import BarRequest, Vendor, VendorError


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
    """`vendor.fetch(request)`, repeated after retryable errors.

    `on_request` is called before each request made, the repeated ones too. Raises the last `VendorError` when the
    attempts are used up, and one that is not retryable at once; any other exception is a fault and passes.
    """
    from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

    retrying = Retrying(
        retry=retry_if_exception(lambda error: isinstance(error, VendorError) and error.retryable),
        stop=stop_after_attempt(policy.attempts),
        wait=wait_exponential_jitter(initial=policy.first_wait, max=policy.longest_wait, jitter=policy.first_wait),
        sleep=sleep,
        reraise=True,
    )

    def ask() -> pl.DataFrame:
        if on_request is not None:
            on_request()
        return vendor.fetch(request)

    return retrying(ask)
