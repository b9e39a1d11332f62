"""A backfill launched in the UI of a machine that is far too busy: `python -m quantlytic_tests.busy [LOAD]`.

LOAD processes (16) spin for as long as it takes, and end by themselves after half an hour at most. `quantlytic serve`
is started among them, a backfill of five partitions launched in the UI, and every run looked at: all must be green.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quantlytic_tests.end_to_end.browser import Browser
from quantlytic_tests.end_to_end.installations import Installed
from quantlytic_tests.end_to_end.universes import CRYPTO_1M, universe

_LOAD = 16
_AT_MOST = 1800.0
_FEATURES = ("bars", "closes", "trend", "momentum", "volatility", "indicators", "labels")
_ASSETS = ("raw_bars", "clean_bars", "coverage", *_FEATURES)
_KEYS = [f"2025-05-{day}" for day in range(10, 15)]


def _spin(until: float) -> None:
    while time.time() < until and os.getppid() != 1:
        for _ in range(1_000_000):
            pass


@contextmanager
def load(processes: int) -> Iterator[None]:
    """So many processes that always want to run. They end by themselves as well, whatever becomes of this one."""
    until = time.time() + _AT_MOST
    spinning = [multiprocessing.Process(target=_spin, args=(until,), daemon=True) for _ in range(processes)]
    for process in spinning:
        process.start()
    try:
        yield
    finally:
        for process in spinning:
            process.terminate()
            process.join()


def _wait(what: str, found, deadline: float):
    while not (answer := found()):
        if time.time() > deadline:
            raise SystemExit(f"{what}: not within {_AT_MOST:.0f} s")
        time.sleep(2)
    return answer


def main() -> None:
    """Print what became of the runs; exit 1 where one of them is red."""
    processes = int(sys.argv[1]) if len(sys.argv) > 1 else _LOAD
    sessions = {**CRYPTO_1M, "first_session": _KEYS[0], "last_session": _KEYS[-1]}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as home, load(processes):
        deadline = time.time() + _AT_MOST
        installed = Installed(Path(home), universe(crypto_1m=sessions))
        began = time.time()
        # A run a partition: five workers to start.
        serving = installed.start("serve", QUANTLYTIC_PORT=str(port), QUANTLYTIC_BACKFILL_CHUNK="1")
        try:
            browser = Browser(port)
            _wait("serve", browser.location_loaded, deadline)
            print(f"UI after {time.time() - began:.0f} s, load {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores")
            began = time.time()
            backfill = browser.ask(
                "mutation($params: LaunchBackfillParams!){launchPartitionBackfill(backfillParams: $params){"
                "... on LaunchBackfillSuccess{backfillId}}}",
                params={
                    "partitionNames": _KEYS,
                    "assetSelection": [{"path": ["crypto_1m", asset]} for asset in _ASSETS],
                },
            )["launchPartitionBackfill"]["backfillId"]

            def ended() -> str | None:
                status = browser.ask(
                    "query($id: String!){partitionBackfillOrError(backfillId: $id){... on PartitionBackfill{status}}}",
                    id=backfill,
                )["partitionBackfillOrError"]["status"]
                return status if status.startswith(("COMPLETED", "FAILED", "CANCELED")) else None

            status = _wait("the backfill", ended, deadline)
            runs = browser.ask("{runsOrError(limit: 100){... on Runs{results{runId status}}}}")["runsOrError"][
                "results"
            ]
            made = {asset: browser.partitions_of(asset) for asset in _ASSETS}
        finally:
            os.kill(serving.pid, signal.SIGINT)
            serving.communicate()
    states = sorted(run["status"] for run in runs)
    print(f"{status} after {time.time() - began:.0f} s; runs: {states}; partitions: {made}")
    if status != "COMPLETED_SUCCESS" or set(states) != {"SUCCESS"} or set(made.values()) != {len(_KEYS)}:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
