"""How long answers take, by route and status, for Prometheus."""

from __future__ import annotations

from functools import lru_cache

from prometheus_client import CollectorRegistry, Histogram
from starlette.types import Scope

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
REGISTRY = CollectorRegistry()
_ANSWERS = Histogram(
    "quantlytic_api_request_seconds",
    "Seconds until an answer of the API was sent, by route.",
    ("method", "route", "status"),
    buckets=_SECONDS,
    registry=REGISTRY,
)


@lru_cache(maxsize=1000)
def _of(method: str, route: str, status: int) -> Histogram:
    return _ANSWERS.labels(method, route, str(status))


def observe(scope: Scope, status: int, seconds: float) -> None:
    """Count an answer. What is no route has one name, whatever was asked."""
    route = scope.get("route_path") or getattr(scope.get("route"), "path", "none")
    method = scope["method"] if route != "none" else "any"
    _of(method, route, status).observe(seconds)
