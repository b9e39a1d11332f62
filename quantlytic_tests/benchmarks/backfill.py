"""Backfill: ten years of daily bars of 50 symbols from a vendor with Yahoo's limits into an empty installation.

What it takes beside the vendor's own time is printed as a ratio to Dagster's bare cost: the same assets over the same
partitions in one run, with empty bodies. The vendor's own time is that of a loop that asks the same questions one
after the other and looks at no answer; a second figure has it asked as many at a time as the product asks. Both are
measured in the same run. Raw bars once with a partition a session (2,516), where Dagster's cost is most of it, and
once with one a month (120), the default of daily bars, where that is next to nothing and the fixed cost of a run
shows. Run with `make bench`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

FIRST, LAST = date(2015, 1, 2), date(2024, 12, 31)
SYMBOLS = [f"S{number:02d}" for number in range(50)]
# What the vendor `yahoo` keeps to as well: seconds and questions.
LIMITS = [(60.0, 60)]
LATENCY = 0.2
UNIVERSE = f"""
datasets:
  ten_years:
    calendar: XNYS
    interval: 1d
    partition: {{partition}}
    first_session: {FIRST}
    last_session: {LAST}
    vendors: [yahoo]
    symbols: [{", ".join(SYMBOLS)}]
"""
_RANGE_CONFIG = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def _range(installation) -> dict:
    """What `execute_in_process` is given for all partitions in one run."""
    from quantlytic_assets.calendars import partitions
    from quantlytic_assets.dagster_internals import range_tags

    keys = partitions.known_keys(installation.universe.datasets["ten_years"])
    return {
        "instance": installation.instance,
        "tags": range_tags(keys[0], keys[-1]),
        "run_config": _RANGE_CONFIG,
    }


def backfill(only: str) -> None:
    """The measured part: `raw` fills the archive; `rest` makes the tables and features of it."""
    from quantlytic_assets.commands.installation import Installation

    installation = Installation()
    job = installation.definitions.resolve_job_def("ten_years_pipeline")
    wanted = [key for key in job.asset_layer.selected_asset_keys if (key.path[-1] == "raw_bars") == (only == "raw")]
    started = time.monotonic()
    result = job.execute_in_process(asset_selection=wanted, **_range(installation))
    assert result.success
    _print(time.monotonic() - started, {"rows": _archived(installation)})


def _archived(installation) -> int:
    resources = installation.resources
    return len(resources.archive.usable_keys(resources.archive.objects("ten_years")))


def bare(only: str) -> None:
    """Dagster's own cost: assets with the same keys, partitions and policy that do nothing."""
    from quantlytic_assets.assets.partitions import definition
    from quantlytic_assets.commands.installation import Installation
    from quantlytic_tests.benchmarks.empty_graph import empty_job

    installation = Installation()
    real = installation.definitions.resolve_job_def("ten_years_pipeline")
    wanted = [key for key in real.asset_layer.selected_asset_keys if (key.path[-1] == "raw_bars") == (only == "raw")]
    job = empty_job(real, wanted, definition(installation.universe.datasets["ten_years"]))
    started = time.monotonic()
    job.execute_in_process(**_range(installation))
    _print(time.monotonic() - started, {"assets": len(wanted)})


def _print(seconds: float, more: dict) -> None:
    print(json.dumps({"seconds": round(seconds, 2), **more}))


def _apart(home: Path, url: str, part: str, only: str, partition: str = "month") -> dict:
    """Run one part in a fresh process; its last line is its result."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "universe.yaml").write_text(UNIVERSE.format(partition=partition))
    environment = {
        **os.environ,
        "QUANTLYTIC_HOME": str(home),
        "QUANTLYTIC_UNIVERSE": str(home / "universe.yaml"),
        "QUANTLYTIC_YAHOO_URL": url,
    }
    done = subprocess.run(
        [sys.executable, "-m", "quantlytic_tests.benchmarks.backfill", part, only],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{part} {only} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _vendor_alone(server, questions: list, at_once: int) -> float:
    """Seconds for questions asked again, so many at a time, by a loop that does nothing else."""
    from concurrent.futures import ThreadPoolExecutor

    import requests

    with requests.Session() as session, ThreadPoolExecutor(at_once) as askers:
        session.headers["User-Agent"] = "b"
        started = time.monotonic()
        asked = [askers.submit(session.get, f"{server.url}{one.path}", params=dict(one.params)) for one in questions]
        for answer in asked:
            assert answer.result().status_code == 200, answer.result().text[:200]
        return time.monotonic() - started


def _raw(root: Path, partition: str) -> tuple[dict, dict, float]:
    """Fill an empty archive: what it took, what bare assets did, and the vendor alone."""
    from quantlytic_assets.vendors.yahoo import YahooVendor
    from quantlytic_tests.vendors.yahoo_server import YahooServer

    with YahooServer(SYMBOLS, first=FIRST, last=LAST, limits=LIMITS, latency=LATENCY) as server:
        bare_raw = _apart(root / "bare-raw", server.url, "bare", "raw", partition)
        raw = _apart(root / "full", server.url, "backfill", "raw", partition)
        asked, rejected = len(server.requests), server.rejected
        server.limits = []
        questions = list(server.questions)
        vendor, together = (_vendor_alone(server, questions, at_once) for at_once in (1, YahooVendor.at_once))
    print(f"a partition a {partition}: {asked} requests for {len(SYMBOLS)} symbols, {rejected} beyond the limits")
    print(f"{raw['rows']:,} bars archived")
    print(f"raw bars {raw['seconds']} s, the vendor alone {vendor:.2f} s, bare assets {bare_raw['seconds']} s")
    print(f"raw bars: (all - vendor) / bare = {(raw['seconds'] - vendor) / bare_raw['seconds']:.2f}")
    beside = (raw["seconds"] - together) / bare_raw["seconds"]
    print(f"the vendor asked {YahooVendor.at_once} questions at a time, as here, {together:.2f} s: {beside:.2f}")
    return raw, bare_raw, vendor


def main() -> None:
    """Run all parts and print the ratios."""
    with tempfile.TemporaryDirectory(prefix="quantlytic-backfill-") as scratch:
        root = Path(scratch)
        _raw(root / "session", "session")
        raw, bare_raw, vendor = _raw(root / "month", "month")
        # Nobody is asked for bars that are archived.
        bare_rest = _apart(root / "month" / "bare-rest", "http://127.0.0.1:9", "bare", "rest")
        rest = _apart(root / "month" / "full", "http://127.0.0.1:9", "backfill", "rest")
    both = (raw["seconds"] + rest["seconds"] - vendor) / (bare_raw["seconds"] + bare_rest["seconds"])
    print(f"tables and features {rest['seconds']} s, bare assets {bare_rest['seconds']} s")
    print(f"raw bars to features: (all - vendor) / bare = {both:.2f}")


if __name__ == "__main__":
    {"backfill": backfill, "bare": bare}[sys.argv[1]](sys.argv[2]) if len(sys.argv) > 1 else main()
