"""How often, and how patiently, any vendor is asked: one limiter and one retry policy around every `fetch`.

What is worth asking again, and when, is the vendor's own judgement (`VendorError.retryable`, `retry_after`), and so is
how much one question may ask for and its limits; nothing vendor-specific is here. Who counts the calls is a `Budget`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import polars as pl

from quantlytic_assets.vendors.protocol import BarRequest, Limit, Served, Vendor, VendorError, VendorTraits

if TYPE_CHECKING:
    from tenacity import RetryCallState


@dataclass(frozen=True)
class RetryPolicy:
    """How often a request is repeated, and after which waits.

    At most `attempts` requests. Waits start at `first_wait` seconds and double up to `longest_wait`, each with up to
    one `first_wait` of jitter on top, so that processes that failed together don't return together.
    """

    attempts: int = 5
    first_wait: float = 1.0
    longest_wait: float = 60.0


DEFAULT_POLICY = RetryPolicy()
# How long a vendor that rejects everything is left alone where it doesn't say.
_OPEN_FOR = 600.0
# The longest wait for an open circuit, or for a free place in a rate limit where others may be asked meanwhile.
_LONGEST_WAIT = 120.0
# And where there is nobody else: the longest limit but a day's quota is one of an hour.
PATIENCE_WITH_THE_LAST = 3700.0


def joint_traits(vendors: Sequence[Vendor], dataset: str) -> VendorTraits:
    """What silence means where vendors (one at least) are asked in turn.

    The first one's word counts, and each other one is asked once more before anything counts as a hole; one that is
    added later too.
    """
    first = vendors[0].traits(dataset)
    return replace(first, attempts_before_hole=first.attempts_before_hole + len(vendors) - 1)


def whom_to_ask_first(vendors: Sequence[Vendor], dataset: str, answered: int) -> int:
    """The place of the vendor to ask first for what was answered so often without.

    What one has answered without is asked of the next one. When the first one's word would be enough, the others follow
    once more in their order, so that one that is added at the end is asked for what was a hole until then.
    """
    enough = vendors[0].traits(dataset).attempts_before_hole
    return answered % len(vendors) if answered < enough else min(answered - enough + 1, len(vendors) - 1)


class Budget(Protocol):
    """Counts what is asked of vendors, for all processes of an installation together."""

    def reserve(self, vendor: str, limits: Sequence[Limit], weight: int) -> float:
        """Take a place for a call of `weight` and return 0, or take none and return the seconds until there is one."""
        ...

    def circuit(self, vendor: str) -> tuple[float, str] | None:
        """For how many seconds more the vendor's circuit is open (no calls), and why; None where it is closed."""
        ...

    def open_circuit(self, vendor: str, seconds: float, reason: str) -> None:
        """Send the vendor no calls for so long."""
        ...

    def left(self, vendor: str, limits: Sequence[Limit]) -> Mapping[int, int]:
        """By window (seconds): the weight that may still be asked for now."""
        ...


def fetch_with_policy(
    vendor: Vendor,
    request: BarRequest,
    policy: RetryPolicy = DEFAULT_POLICY,
    on_request: Callable[[], None] | None = None,
    sleep: Callable[[float], None] = time.sleep,
    budget: Budget | None = None,
    patience: float = _LONGEST_WAIT,
) -> Served:
    """The bars of `request`, asked for in as many `fetch`es as the vendor needs, each repeated after retryable errors.

    With a `budget` each waits for a place within the vendor's limits first; where that takes more than `patience`
    seconds, or its circuit is open for two minutes, `VendorError` says so and nothing is asked. A vendor that says how
    long to wait is not asked before, by anybody; when that is longer than the policy waits, its error is raised at
    once. `on_request` is called before each request made, the repeated ones too. Raises the last `VendorError` when the
    attempts are used up, and one that is not retryable at once; any other exception is a fault and passes.
    """
    from tenacity import Retrying, retry_if_exception, stop_after_attempt

    parts = vendor.parts(request)
    for part in parts:
        unsupported = vendor.unsupported(part)
        if unsupported is not None:
            raise VendorError(unsupported, retryable=False)
    retrying = Retrying(
        retry=retry_if_exception(lambda error: _worth_it(error, policy)),
        stop=stop_after_attempt(policy.attempts),
        wait=lambda state: _wait(state, policy),
        sleep=sleep,
        reraise=True,
    )

    def ask(part: BarRequest) -> Served:
        return ask_once(vendor, part, on_request, sleep, budget, patience)

    answers = [retrying(ask, part) for part in parts]
    return Served(
        pl.concat([answer.bars for answer in answers]),
        pl.concat([answer.actions for answer in answers]).unique(maintain_order=True),
    )


def ask_once(
    vendor: Vendor,
    request: BarRequest,
    on_request: Callable[[], None] | None = None,
    sleep: Callable[[float], None] = time.sleep,
    budget: Budget | None = None,
    patience: float = _LONGEST_WAIT,
) -> Served:
    """One question to a vendor, asked when the budget has a place for it. Raises `VendorError`."""
    if budget is not None:
        _take_place(vendor, request, sleep, budget, patience)
    if on_request is not None:
        on_request()
    try:
        return vendor.fetch(request)
    except VendorError as error:
        if budget is not None and (error.opens_circuit or error.retry_after is not None):
            seconds = error.retry_after if error.retry_after is not None else _OPEN_FOR
            budget.open_circuit(vendor.name, seconds, str(error))
        raise


def _take_place(
    vendor: Vendor, request: BarRequest, sleep: Callable[[float], None], budget: Budget, patience: float
) -> None:
    weight, waited = vendor.weight(request), 0.0
    while True:
        shut = budget.circuit(vendor.name)
        wait, why = shut if shut is not None else (budget.reserve(vendor.name, vendor.limits, weight), "")
        if not wait:
            return
        if waited + wait > (patience if shut is None else _LONGEST_WAIT):
            said = f"not to be asked yet ({why})" if why else "its rate limit is used up"
            raise VendorError(f"{said}; free again in {_length(wait)}", retryable=False)
        sleep(wait)
        waited += wait


def _length(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _worth_it(error: BaseException, policy: RetryPolicy) -> bool:
    if not isinstance(error, VendorError) or not error.retryable or error.opens_circuit:
        return False
    return (error.retry_after or 0) <= policy.longest_wait


def _wait(state: RetryCallState, policy: RetryPolicy) -> float:
    """Seconds before the next attempt: what the vendor asked for, or our own growing wait where that is longer."""
    jitter = random.uniform(0, policy.first_wait)
    error = state.outcome.exception() if state.outcome is not None else None
    asked = getattr(error, "retry_after", None) or 0.0
    doubling = policy.first_wait * 2 ** min(state.attempt_number - 1, 30)
    return max(min(doubling + jitter, policy.longest_wait), asked + jitter if asked else 0.0)
