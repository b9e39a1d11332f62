"""Two datasets backfilled at once, against one after the other.

Two datasets of the shipped 1-minute bars, each with features, in an installation of their own. The commands are
`quantlytic backfill one` and `quantlytic backfill two`, as a user starts them. Prints the time of both at once as a
ratio to the time of one after the other: at most 0.75 on two idle cores. Installations are new for each, and the order
is swapped between rounds. Run with `make bench`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

UNIVERSE = """
datasets:
""" + "".join(
    f"""
  {name}:
    calendar: 24/7
    interval: 1m
    first_session: 2025-05-10
    last_session: 2025-05-31
    vendors: [sample]
    venue: binance
    feature_intervals: [5m, 1h]
    symbols: [BTC-USD, ETH-USD, SOL-USD, ADA-USD, XRP-USD]
"""
    for name in ("one", "two")
)
NAMES = ("one", "two")


def backfilled(at_once: bool) -> float:
    """Seconds that the two backfills take in a new installation."""
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        (home / "universe.yaml").write_text(UNIVERSE)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("QUANTLYTIC_")},
            "QUANTLYTIC_UNIVERSE": str(home / "universe.yaml"),
            "QUANTLYTIC_HOME": str(home / "data"),
        }
        command = str(Path(sys.executable).parent / "quantlytic")
        # An installation that is in use: its databases are laid out, and dbt has parsed its project.
        for name in NAMES:
            subprocess.run(
                [command, "backfill", name, "--to", "2025-05-10"], env=environment, check=True, capture_output=True
            )

        def start(name: str) -> subprocess.Popen:
            return subprocess.Popen([command, "backfill", name], env=environment, stdout=subprocess.DEVNULL)

        began = time.perf_counter()
        if at_once:
            running = [start(name) for name in NAMES]
            codes = [process.wait() for process in running]
        else:
            codes = [start(name).wait() for name in NAMES]
        taken = time.perf_counter() - began
        if any(codes):
            raise SystemExit(f"a backfill failed: {codes}")
        return taken


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=2)
    rounds = options.parse_args().rounds
    ratios = []
    for number in range(rounds):
        order = (True, False) if number % 2 else (False, True)
        taken = {at_once: backfilled(at_once) for at_once in order}
        ratios.append(taken[True] / taken[False])
        print(
            f"one after the other {taken[False]:.1f} s, at once {taken[True]:.1f} s: ratio {ratios[-1]:.2f}", flush=True
        )
    print(f"two backfills at once: {sorted(ratios)[len(ratios) // 2]:.2f} of one after the other (goal 0.75)")


if __name__ == "__main__":
    main()
