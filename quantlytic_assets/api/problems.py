"""Errors as callers see them: RFC 9457 problem details, `application/problem+json`.

Whatever refuses a request raises `Problem`; nothing else makes an error's body.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

MEDIA_TYPE = "application/problem+json"
_ALPACA = ("/v2/stocks/", "/v1beta3/crypto/")


class Problem(Exception):
    """A request that can't be answered: HTTP status, what is wrong and what would be right, more members, headers."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None, **more: Any):
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.more = more

    @property
    def body(self) -> bytes:
        """The problem details, JSON."""
        title = HTTPStatus(self.status).phrase
        return orjson.dumps(
            {"type": "about:blank", "title": title, "status": self.status, "detail": self.detail, **self.more}
        )

    def response(self) -> Response:
        """The answer that says it."""
        return Response(self.body, self.status, {"cache-control": "no-store", **self.headers}, MEDIA_TYPE)


def unknown(kind: str, name: str, known: Iterable[str], **more: Any) -> Problem:
    """404 for a name that is not among the known ones, with the nearest of them."""
    names = list(known)
    near = get_close_matches(name, names, n=3, cutoff=0.5) or [one for one in names if one.lower() == name.lower()]
    likely = f" Did you mean {near[0]!r}?" if near else ""
    shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    return Problem(404, f"No {kind} {name!r}.{likely} There are: {shown or 'none'}.", did_you_mean=near, **more)


async def told(request: Request, error: Exception) -> Response:
    """Any error as problem details; of what was not foreseen only its kind is said."""
    found = _problem(error)
    if request.url.path.startswith(_ALPACA):
        # What its client reads of an error.
        found.more |= {"message": found.detail, "code": 100_000 * found.status + 10_000}
    return found.response()


def _problem(error: Exception) -> Problem:
    if isinstance(error, Problem):
        return error
    if isinstance(error, RequestValidationError):
        mistakes = [
            {"where": ".".join(str(part) for part in one["loc"]), "detail": one["msg"]} for one in error.errors()
        ]
        detail = "; ".join(f"{one['where']}: {one['detail']}" for one in mistakes)
        return Problem(422, detail, errors=mistakes)
    if isinstance(error, HTTPException):
        return Problem(error.status_code, str(error.detail), error.headers)
    return Problem(500, f"This could not be answered ({type(error).__name__}); the log of the API says more.")
