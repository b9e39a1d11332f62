"""One HTTP question to a vendor, and every way in which it can fail, as `VendorError`.

Vendors that answer JSON over HTTP share this; what the JSON means is each vendor's own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import polars as pl
import requests

from quantlytic_assets.vendors.protocol import VendorError

# Seconds to connect, and of silence while answering.
_TIMEOUT = (5, 20)
_PLAIN = {int, float, type(None)}
_MAY_PASS = (408, 425, 429, 500, 502, 503, 504)
_AGENT = "quantlytic/0.1"


@dataclass(frozen=True)
class Answer:
    """Parsed JSON and the headers it came with.

    at: when the vendor wrote it, by its own clock or ours, whichever is behind. A bar that closed after this was not
    finished.
    """

    body: Any
    headers: Mapping[str, str]
    at: datetime


def open_session() -> requests.Session:
    """A session that says who asks; it keeps its connection open between questions."""
    session = requests.Session()
    session.headers["User-Agent"] = _AGENT
    return session


def ask(session: requests.Session, url: str, params: Mapping[str, Any]) -> Answer:
    """GET. Raises `VendorError` when there is no answer, an error status, or anything but JSON: see `error_of`."""
    response = get(session, url, params)
    if response.status_code != 200:
        raise error_of(response)
    return answer_of(response)


def get(session: requests.Session, url: str, params: Mapping[str, Any] | None = None) -> requests.Response:
    """GET, whatever the status says. Raises `VendorError` when there is no whole answer."""
    try:
        return session.get(url, params=dict(params or {}), timeout=_TIMEOUT)
    except (requests.RequestException, ValueError) as error:
        # ValueError: where a redirect leads is no address.
        raise VendorError(f"no answer: {type(error).__name__}", retryable=True) from None


def answer_of(response: requests.Response) -> Answer:
    """The JSON of a response. Raises `VendorError` where it is anything else."""
    now = datetime.now(UTC)
    try:
        body = response.json()
    except (ValueError, RecursionError):
        kind = response.headers.get("Content-Type", "no content type")
        raise VendorError(f"answered {kind} that is not JSON: {start_of(response.text)}", retryable=True) from None
    return Answer(body, response.headers, min(now, _date(response) or now))


def whole_numbers(name: str, values: Sequence[object]) -> pl.Series:
    """A column of 64-bit integers of an answer. Raises `VendorError` where one is anything else."""
    if not all(type(value) is int and abs(value) < 1 << 53 for value in values):
        raise VendorError(f"{name} is not always a whole number", retryable=False)
    return pl.Series(name, values, dtype=pl.Int64)


def numbers(name: str, values: Sequence[object]) -> pl.Series:
    """A column of numbers of an answer, sent as numbers or as text. What is neither becomes null."""
    if _PLAIN.issuperset(map(type, values)):
        found = pl.Series(name, values, dtype=pl.Float64, strict=False)
    else:
        text = [value if isinstance(value, str) and value.isascii() else None for value in values]
        plain = [value if type(value) in (int, float) else None for value in values]
        found = pl.Series(name, plain, dtype=pl.Float64, strict=False).fill_null(
            pl.Series(text, dtype=pl.String).cast(pl.Float64, strict=False)
        )
    return found.set(~(found.abs() < 1e300), None)


def error_of(response: requests.Response, said: str = "") -> VendorError:
    """What a status that is not 200 means; `said`: the vendor's words, where they are not in the usual places.

    429 and 418 carry `retry_after` where the vendor gives it; 418, a ban, is not worth repeating.
    """
    status, after = response.status_code, retry_after(response)
    said = said or _message(response)
    if status == 418:
        until = f" for {after:.0f} s" if after is not None else ""
        return VendorError(
            f"HTTP 418, this address is banned{until}: {said}", False, retry_after=after, opens_circuit=True
        )
    if status == 451:
        return VendorError(f"HTTP 451, not served to where this machine is: {said}", retryable=False)
    return VendorError(f"HTTP {status}: {said}", retryable=status in _MAY_PASS, retry_after=after)


def _message(response: requests.Response) -> str:
    """The vendor's own words: Binance's `msg`, Coinbase's `message`, or how the body begins."""
    try:
        body = json.loads(response.text)
    except (ValueError, RecursionError):
        body = None
    if isinstance(body, dict):
        words = [str(body[name]) for name in ("code", "msg", "message") if body.get(name) is not None]
        if words:
            return start_of(" ".join(words))
    return start_of(response.text)


def start_of(text: str) -> str:
    """How a text of a vendor's begins, on one line that can be printed and stored."""
    # JSON can hold halves of surrogate pairs, which nothing else takes.
    flat = " ".join(text.encode("utf-8", "backslashreplace").decode().split())
    return (flat[:160] + " …" if len(flat) > 160 else flat) or "nothing"


def retry_after(response: requests.Response) -> float | None:
    """Seconds to wait, from a header that holds seconds or a date; None where it is not there or neither.

    A date is by the vendor's clock, and so is what it is counted from, where the vendor says what time it is.
    """
    given = response.headers.get("Retry-After")
    if given is None:
        return None
    try:
        seconds = float(given)
        return max(0.0, seconds) if math.isfinite(seconds) else None
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(given)
    except (ValueError, TypeError):
        return None
    until = until.replace(tzinfo=until.tzinfo or UTC)
    return max(0.0, (until - (_date(response) or datetime.now(UTC))).total_seconds())


def _date(response: requests.Response) -> datetime | None:
    given = response.headers.get("Date")
    try:
        date = parsedate_to_datetime(given) if given else None
    except ValueError:
        return None
    return date if date is not None and date.tzinfo is not None else None
