"""Servers of our own, a real installation on them, and `quantlytic serve` kept running by a supervisor."""

from __future__ import annotations

import http.client
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from quantlytic_assets.automation.landing_plan import LONGEST_WAIT
from quantlytic_tests.end_to_end.browser import Browser
from quantlytic_tests.end_to_end.installations import COMMAND, Installed
from quantlytic_tests.faults.publisher import SYMBOLS
from quantlytic_tests.faults.servers import Servers
from quantlytic_tests.faults.small_disk import SmallDisk
from quantlytic_tests.faults.supervisor import Program, Supervisor, children, free_port, lives

NUMBERED = "numbered_1m"
FED = "fed_1m"
FED_SYMBOLS = ("BTC-USDT", "ETH-USDT", "SOL-USDT")
# How long anything that has to happen by itself may take: the sensor may wait before it asks again for what failed runs
# left, and that takes its time to be landed, on a machine that is busy with other things as well.
PATIENCE = LONGEST_WAIT + 180
# Room for what a round writes, and few enough files to be used up in a second.
_DISK_MEGABYTES, _DISK_FILES = 256, 40_000


# Set when the program is being ended: nobody waits any more.
interrupted = threading.Event()


class Stalled(Exception):
    """What should have happened by itself did not."""


def wait_for(what: Callable[[], Any], described: str, every: float = 0.1) -> Any:
    """What `what` returns once that is something. Raises `Stalled` when it takes too long."""
    deadline = time.monotonic() + PATIENCE
    while not (found := what()):
        if time.monotonic() > deadline:
            raise Stalled(f"{described}: not in {PATIENCE:.0f} s")
        if interrupted.wait(every):
            raise Stalled(f"{described}: interrupted")
    return found


def universe() -> dict[str, dict]:
    """A dataset of numbered bars and one with a live feed; both open-ended, round the clock, and without vendors."""
    common = {"calendar": "24/7", "interval": "1m", "vendors": [], "feature_intervals": ["1h"]}
    month_ago = datetime.now(UTC).date() - timedelta(days=30)
    return {
        "datasets": {
            NUMBERED: {**common, "first_session": month_ago.isoformat(), "symbols": SYMBOLS},
            # The recordings that the feed is given are of that day.
            FED: {**common, "first_session": "2024-08-08", "symbols": list(FED_SYMBOLS), "feed": "binance_trades"},
        }
    }


def python(installed: Installed, log: Path, module: str, *arguments: str) -> Program:
    """A module as a program of an installation."""
    return Program([sys.executable, "-m", module, *arguments], installed.environment(), log)


@dataclass(frozen=True)
class Landing:
    """A landing run that is at work in a process."""

    run: str
    pid: int


class Stack:
    """All of it below `root`, as a context. `disk` is what MinIO keeps its data on, if a small one can be mounted."""

    def __init__(self, root: Path, mounts: bool):
        self.root = root
        self.supervisor = Supervisor()
        self.servers = Servers(root / "servers")
        self.disk: SmallDisk | None = None
        self._mounts = mounts
        self._open = ExitStack()

    def __enter__(self) -> Stack:
        with ExitStack() as opening:
            self._start(opening)
            self._open = opening.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _start(self, opening: ExitStack) -> None:
        # Postgres' user, another one than root, has to get through.
        self.root.chmod(0o711)
        self.servers.directory.mkdir()
        if self._mounts:
            disk = SmallDisk(self.servers.directory / "minio", _DISK_MEGABYTES, _DISK_FILES)
            opening.callback(disk.close)
        opening.callback(self.servers.down)
        self.servers.up()
        if self._mounts and self.servers.native:
            self.disk = disk
        os.environ.update(self.servers.environment)
        self.installed = Installed(self.root, universe(), "services")
        self.logs = self.root / "logs"
        self.logs.mkdir()
        opening.enter_context(self.supervisor)
        self._browser = Browser(self.serve("serve"))
        wait_for(self._location_loaded, "the code location is loaded")
        for dataset in (NUMBERED, FED):
            self._browser.start_sensor(f"{dataset}_bus_sensor")

    def serve(self, name: str) -> int:
        """Start `quantlytic serve`; returns its port."""
        port = free_port()
        command = [str(COMMAND), "serve", "--no-api"]
        environment = self.installed.environment(QUANTLYTIC_PORT=str(port))
        self.supervisor.start(name, Program(command, environment, self.logs / f"{name}.log"))
        return port

    # What the webserver says -------------------------------------------------------------------------------------

    def _ask(self, query: str, **variables: Any) -> dict[str, Any] | None:
        """The answer; None while the webserver, or the database behind it, is away."""
        try:
            return self._browser.ask(query, **variables)
        except (AssertionError, OSError, ValueError, http.client.HTTPException):
            return None

    def _location_loaded(self) -> bool:
        return bool(self.supervisor.pid("serve")) and self._browser.location_loaded()

    def landing(self, other_than: Landing | None = None) -> Landing:
        """A landing run of the numbered bars that is at work, waited for."""
        return wait_for(lambda: self._landing_now(other_than), "a landing run is at work", 0.2)

    def _landing_now(self, other_than: Landing | None) -> Landing | None:
        answer = self._ask(
            "query($filter: RunsFilter!){runsOrError(filter: $filter, limit: 2){... on Runs{results{runId "
            "eventConnection{events{... on MessageEvent{message}}}}}}}",
            filter={"pipelineName": f"{NUMBERED}_landing", "statuses": ["STARTED"]},
        )
        for run in answer["runsOrError"]["results"] if answer else []:
            said = " ".join(event.get("message") or "" for event in run["eventConnection"]["events"])
            pid = re.search(r"Started process for run \(pid: (\d+)\)", said)
            landing = Landing(run["runId"], int(pid[1])) if pid else None
            # A run whose process was killed is called started for a while.
            if landing and landing != other_than and lives(landing.pid):
                return landing
        return None

    def daemon(self) -> int:
        """The daemon's process id, waited for."""

        def find() -> int | None:
            serving = self.supervisor.pid("serve")
            return next(iter(children(serving, "dagster-daemon")), None) if serving else None

        return wait_for(find, "the daemon runs", 0.2)

    def situation(self) -> str:
        """Unfinished runs and the sensors' last ticks, for whoever has to find out why nothing goes on."""
        runs = self._ask(
            "query($filter: RunsFilter!){runsOrError(filter: $filter, limit: 20){... on Runs{results{runId jobName "
            "status startTime}}}}",
            filter={"statuses": ["QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING"]},
        )
        ticks = self._ask(
            "query($s: RepositorySelector!){sensorsOrError(repositorySelector: $s){... on Sensors{results{name "
            "sensorState{ticks(limit: 3){timestamp status skipReason error{message}}}}}}}",
            s={"repositoryName": "__repository__", "repositoryLocationName": "quantlytic"},
        )
        return f"unfinished runs: {runs}\nlast ticks: {ticks}\nrestarts: {dict(self.supervisor.restarts)}"
