"""`quantlytic bench-queries`: what users ask of the API, asked many times at once, and how long each route takes.

The questions follow from the universe: prices, sessions and pages of candles, indicators, figures, signals, gaps,
orders and positions of its symbols and strategies, in the shares in which people ask for them.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from rich.table import Table

from quantlytic_assets.calendars.partitions import known_keys
from quantlytic_assets.commands.inspection import print_json
from quantlytic_assets.commands.installation import CommandError, UsageError
from quantlytic_assets.commands.server_program import PATIENCE_SECONDS, answers

if TYPE_CHECKING:
    from rich.console import Console

    from quantlytic_assets.commands.installation import Installation
    from quantlytic_assets.universe.models import Dataset, Universe

# Of a thousand questions so many are of each route.
_SHARES = {
    "/prices": 400, "/candles session": 200, "/candles newest 100": 150, "/indicators": 80, "/api/data": 50,
    "/api/analytics/intraday": 30, "/api/analytics/daily": 30, "/v2/stocks/bars": 20, "/signals": 15, "/gaps": 10,
    "/orders": 8, "/positions": 7,
}  # fmt: skip
_SEED = 20_250_101
_START = "from quantlytic_assets.cli import main; import sys; main(sys.argv[1:])"


@dataclass(frozen=True)
class Question:
    """A request: the route that it counts for, and its address."""

    route: str
    path: str


def questions(universe: Universe, count: int) -> list[Question]:
    """So many questions about a universe, always the same ones, mixed."""
    chance = random.Random(_SEED)
    routes = chance.choices(list(_SHARES), weights=list(_SHARES.values()), k=count)
    datasets = list(universe.datasets.values())
    sessions = {one.name: known_keys(one) for one in datasets}
    return [Question(route, _path(chance, route, universe, datasets, sessions)) for route in routes]


def _path(
    chance: random.Random, route: str, universe: Universe, datasets: Sequence[Dataset], sessions: dict[str, list[str]]
) -> str:
    if route == "/api/analytics/intraday" or route == "/v2/stocks/bars":
        wanted = [one for one in datasets if (one.interval != "1d") == (route == "/api/analytics/intraday")]
        datasets = wanted or datasets
    dataset = chance.choice(datasets)
    symbol, name = quote(chance.choice(dataset.symbols).symbol), dataset.name
    paths = {
        "/prices": f"/prices/{symbol}?dataset={name}",
        "/candles session": f"/candles/{symbol}?dataset={name}&session={chance.choice(sessions[name])}",
        "/candles newest 100": f"/candles/{symbol}?dataset={name}&limit=100",
        "/indicators": f"/indicators/{symbol}?dataset={name}&limit=100",
        "/api/data": f"/api/data/{symbol}?dataset={name}",
        "/api/analytics/intraday": f"/api/analytics/intraday/{symbol}?dataset={name}",
        "/api/analytics/daily": f"/api/analytics/daily/{symbol}?dataset={name}&sessions=5",
        "/v2/stocks/bars": f"/v2/stocks/bars?symbols={symbol}&timeframe=1Day&start=1990-01-01&limit=1000",
        "/gaps": f"/gaps/{name}",
        "/orders": "/orders?limit=100",
        "/positions": "/positions",
        "/signals": f"/signals/{chance.choice(list(universe.strategies) or [''])}?limit=20",
    }
    return paths[route]


async def _ask(
    port: int, asked: list[Question], headers: str, taken: dict[str, list[float]], failed: list[str]
) -> None:
    """Ask over one connection, one after another, as long as there are questions."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
    while asked:
        question = asked.pop()
        begun = time.perf_counter()
        writer.write(f"GET {question.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{headers}\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.partition("content-length:")[2].partition("\r\n")[0])
        body = await reader.readexactly(length)
        taken.setdefault(question.route, []).append(time.perf_counter() - begun)
        status = head.split(" ", 2)[1]
        if not status.startswith("2"):
            failed.append(f"{question.path}: {status} {body[:200].decode(errors='replace')}")
    writer.close()


async def _all(
    port: int, asked: list[Question], connections: int, headers: str
) -> tuple[dict[str, list[float]], list[str]]:
    taken: dict[str, list[float]] = {}
    failed: list[str] = []
    await asyncio.gather(*(_ask(port, asked, headers, taken, failed) for _ in range(connections)))
    return taken, failed


@contextmanager
def _api(installation: Installation, port: int) -> Iterator[None]:
    """The API on a port: the one that runs there, or one for as long as it is needed."""
    if answers(port):
        yield
        return
    log = installation.settings.directory("logs") / "api.log"
    with log.open("ab") as into:
        process = subprocess.Popen([sys.executable, "-c", _START, "api", "--port", str(port)], stdout=into, stderr=into)
    try:
        deadline = time.monotonic() + 2 * PATIENCE_SECONDS
        while not answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise CommandError(f"the API did not start; its log is {log}")
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(timeout=30)


def run_bench(
    installation: Installation, out: Console, requests: int, connections: int, key: str | None, as_json: bool
) -> None:
    """Ask and print; raises `CommandError` where no question was answered."""
    settings = installation.settings
    if settings.api_cert:
        raise UsageError("bench-queries speaks HTTP only; start an API without QUANTLYTIC_API_CERT for it")
    asked = [one for one in questions(installation.universe, requests) if "/signals/?" not in one.path]
    headers = f"Authorization: Bearer {key}\r\n" if key else ""
    with _api(installation, settings.api_port):
        asyncio.run(_until_ready(settings.api_port, headers))
        begun = time.perf_counter()
        taken, failed = asyncio.run(_all(settings.api_port, list(asked), connections, headers))
        passed = time.perf_counter() - begun
    rows: list[dict[str, Any]] = []
    for route in [*(route for route in _SHARES if route in taken), "all"]:
        some = taken[route] if route != "all" else [one for each in taken.values() for one in each]
        p50, p95, p99 = np.percentile(some, [50, 95, 99]) * 1e3
        rows.append({"route": route, "requests": len(some), "p50_ms": p50, "p95_ms": p95, "p99_ms": p99})
    if as_json:
        print_json(
            {"seconds": passed, "requests_per_second": len(asked) / passed, "failed": len(failed), "routes": rows}
        )
    else:
        table = Table("route", "requests", "p50 ms", "p95 ms", "p99 ms")
        for row in rows:
            table.add_row(
                row["route"], f"{row['requests']:,}", *(f"{row[name]:.2f}" for name in ("p50_ms", "p95_ms", "p99_ms"))
            )
        out.print(table)
        out.print(f"{len(asked) / passed:,.0f} requests a second over {connections} connections", highlight=False)
        for line in failed[:3]:
            out.print(line, highlight=False, markup=False, soft_wrap=True)
    if failed:
        raise CommandError(f"{len(failed)} of {len(asked)} requests were answered with an error")


async def _until_ready(port: int, headers: str) -> None:
    """Wait until the hot store is filled."""
    deadline = time.monotonic() + 600
    while True:
        failed: list[str] = []
        await _ask(port, [Question("/healthz", "/healthz")], headers, {}, failed)
        if not failed:
            return
        if time.monotonic() > deadline:
            raise CommandError(f"the API is not ready: {failed[0]}")
        await asyncio.sleep(0.5)
