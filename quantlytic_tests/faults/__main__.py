"""`python -m quantlytic_tests.faults`: every kind of fault many times at random moments; nothing lost, nothing twice.

Starts servers of its own, for it kills them. Each kind has a fresh installation; with --short all of them share one. At
the end of each everything must be landed by itself, and is counted offset by offset. Prints a table; exits 1 where
anything is lost, there twice or not caught up.
"""

from __future__ import annotations

import argparse
import secrets
import signal
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from quantlytic_tests.faults.kinds import all_kinds
from quantlytic_tests.faults.rounds import Plan, Row, run_round, say
from quantlytic_tests.faults.small_disk import enter_own_mounts

_SHORT_REPEATS, _SHORT_PACE = 2, 0.4
_ENDING = (signal.SIGTERM, signal.SIGINT)


def _table(rows: Sequence[Row]) -> Table:
    table = Table("kind", "repeats", "records", "landed", "lost", "twice", "bars", "seconds", title="Faults")
    for row in rows:
        told = row.comparison
        counts = (told.records, told.landed, told.lost, told.twice, told.bars) if told else ("?",) * 5
        counts = ("-" if count is None else str(count) for count in counts)
        seconds = "not caught up" if row.seconds is None else f"{row.seconds:.0f}"
        strikes = "\n".join(str(count) for count in row.strikes.values())
        table.add_row("\n".join(row.strikes), strikes, *counts, seconds)
    return table


def _end(number: int, _frame: object) -> None:
    # Once: what is started here has to be ended, however impatient somebody is.
    for one in _ENDING:
        signal.signal(one, signal.SIG_IGN)
    sys.exit(128 + number)


def main() -> int:
    """Run what is asked for; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m quantlytic_tests.faults", description=__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="kinds whose names begin like this")
    parser.add_argument(
        "--short", action="store_true", help=f"{_SHORT_REPEATS} quick repeats of each; clean.bars of one dataset only"
    )
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="of the random moments")
    options = parser.parse_args()
    kinds = [kind for kind in all_kinds() if not options.only or kind.name.startswith(tuple(options.only))]
    if not kinds:
        parser.error(f"the kinds are: {', '.join(kind.name for kind in all_kinds())}")
    no_mounts = enter_own_mounts("quantlytic_tests.faults")
    for number in _ENDING:
        signal.signal(number, _end)
    say(f"seed {options.seed}")
    plan = Plan(options.seed, options.repeats, 1.0, no_mounts)
    if options.short:
        plan = Plan(options.seed, _SHORT_REPEATS, _SHORT_PACE, no_mounts, clean_bars_of_first_only=True)
    rounds = [kinds] if options.short else [[kind] for kind in kinds]
    rows = [row for kinds_of_round in rounds for row in run_round(kinds_of_round, plan)]
    console = Console(width=120, highlight=False, markup=False)
    console.print(_table([row for row in rows if row.strikes]))
    for row in rows:
        for name, reason in row.not_tried.items():
            console.print(f"NOT TRIED: {name}: {reason}")
        for line in row.wrong:
            console.print(f"WRONG: {line}")
    return 1 if any(row.wrong for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
