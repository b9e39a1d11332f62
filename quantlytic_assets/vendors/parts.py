"""Cutting a range of bars into questions, and joining ranges again. What one question may span is each vendor's own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise

from quantlytic_assets.calendars.intervals import INTERVALS
from quantlytic_assets.vendors.protocol import BarRequest


def cut(request: BarRequest, edges: Iterable[datetime]) -> list[BarRequest]:
    """The request cut at those of the `edges` (UTC) that lie inside it, oldest first."""
    inside = sorted({edge for edge in edges if request.start < edge < request.end})
    bounds = [request.start, *inside, request.end]
    return [replace(request, start=start, end=end) for start, end in pairwise(bounds)]


def by_length(request: BarRequest, longest: timedelta) -> list[BarRequest]:
    """The request in parts of `longest` each, the last one shorter, oldest first."""
    count = -((request.start - request.end) // longest)
    return cut(request, (request.start + number * longest for number in range(1, count)))


def by_bars(request: BarRequest, most: int) -> list[BarRequest]:
    """The request in parts of at most `most` bars of its interval each, oldest first."""
    return by_length(request, most * INTERVALS[request.interval])


def joined(requests: Iterable[BarRequest]) -> list[BarRequest]:
    """Requests of one symbol, oldest first, in as few as say the same: those that touch are one."""
    whole: list[BarRequest] = []
    for request in requests:
        if whole and whole[-1].end == request.start:
            whole[-1] = replace(whole[-1], end=request.end)
        else:
            whole.append(request)
    return whole
