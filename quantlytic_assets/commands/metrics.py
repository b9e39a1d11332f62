"""`quantlytic metrics`: the installation's figures for Prometheus, on /metrics of a port."""

from __future__ import annotations

import json
import logging
import signal
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from quantlytic_assets.commands.installation import CommandError
from quantlytic_assets.universe.membership import members

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rich.console import Console

    from quantlytic_assets.commands.installation import Installation
    from quantlytic_assets.observability.collector import Part
    from quantlytic_assets.serving.hot_store import HotStore
    from quantlytic_assets.universe.models import Universe


def run_metrics(installation: Installation, out: Console, port: int, host: str = "127.0.0.1") -> None:
    """Serve the figures until SIGINT or SIGTERM. Raises `CommandError` where the port can't be had."""
    from prometheus_client import CollectorRegistry, start_http_server

    from quantlytic_assets.observability.collector import PartsCollector

    # Told once here, when a part begins to fail; Kafka's client alone would say it several times a second.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)

    def on_change(part: str, error: Exception | None) -> None:
        told = "answers again" if error is None else f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        out.print(f"{part}: {told}", highlight=False, markup=False, soft_wrap=True)

    collector = PartsCollector(parts(installation, lambda: calls_left(installation)), on_change)
    registry = CollectorRegistry()
    registry.register(collector)
    try:
        server, _ = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise CommandError(f"port {port} on {host} can't be had ({error}); set QUANTLYTIC_METRICS_PORT") from None
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    collector.start(stopping)
    out.print(f"metrics: http://{host}:{port}/metrics   end with Ctrl-C", soft_wrap=True)
    stopping.wait()
    server.shutdown()
    server.server_close()


def calls_left(installation: Installation) -> dict[tuple[str, int], int]:
    """What each vendor of the universe still allows now, by (vendor, window in seconds)."""
    resources = installation.resources
    names = dict.fromkeys(name for one in installation.universe.datasets.values() for name in one.vendors)
    return {
        (name, seconds): left
        for name in names
        for seconds, left in resources.budgets.left(name, resources.vendor(name).limits).items()
    }


def parts(installation: Installation, budgets: Callable[[], Mapping[tuple[str, int], int]] | None = None) -> list[Part]:
    """What is asked, and how often. `budgets`: calls left by (vendor, window in seconds); None where nobody counts."""
    from quantlytic_assets.observability.collector import Part
    from quantlytic_assets.observability.installation import installation_metrics
    from quantlytic_assets.observability.lake import size_metrics, table_metrics
    from quantlytic_assets.observability.landing import LandedTally, archive_metrics, bus_metrics
    from quantlytic_assets.observability.live import live_metrics
    from quantlytic_assets.observability.runs import RunWindow
    from quantlytic_assets.observability.vendors import budget_metrics

    resources, universe, settings = installation.resources, installation.universe, installation.settings
    names = list(universe.datasets)
    # Made when they are first asked: a server that is down then must not keep the others from being shown.
    made: dict[str, Any] = {}

    def tally() -> LandedTally:
        if "tally" not in made:
            made["tally"] = LandedTally(resources.archive, names, settings.directory("metrics"))
        return made["tally"]

    def runs() -> RunWindow:
        if "runs" not in made:
            made["runs"] = RunWindow(installation.instance)
        return made["runs"]

    all_parts = [
        Part(
            "bus",
            10,
            lambda: bus_metrics(
                resources.bus, resources.archive, lambda name: resources.lander(universe.datasets[name]), names
            ),
        ),
        Part("landing", 10, lambda: tally().metrics()),
        Part("archive", 300, lambda: archive_metrics(resources.archive, names)),
        Part("lake", 30, lambda: table_metrics(resources.lake, names)),
        Part("lake_files", 300, lambda: size_metrics(resources.lake)),
        Part("runs", 15, lambda: runs().metrics()),
        Part("live", 10, lambda: live_metrics(_live_facts(resources.hot))),
        Part("installation", 60, lambda: installation_metrics(settings.data, _fed_now(universe))),
    ]
    if budgets is not None:
        all_parts.append(Part("vendors", 15, lambda: budget_metrics(budgets())))
    return all_parts


def _live_facts(hot: HotStore) -> dict[str, dict[str, Any]]:
    """What each dataset's live path said of itself last."""
    with hot.read() as reader:
        return {name: json.loads(body) for (name,), body in reader.facts("live")}


def _fed_now(universe: Universe) -> list[str]:
    today = datetime.now(UTC).date()
    return [one.name for one in universe.datasets.values() if one.feed is not None and members(one, today)]
