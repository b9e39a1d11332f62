"""`python -m quantlytic_tests.faults`: every kind of fault many times at random moments; nothing lost, nothing twice.

Starts servers of its own, for it kills them. Each kind has a fresh installation; with --short all kinds share one. At
the end of each everything must be landed by itself, and is counted offset by offset. Prints a table; exits 1 where
anything is lost, there twice or not caught up.
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from rich.console import Console
from rich.table import Table

from quantlytic_tests.faults.comparison import Comparison
from quantlytic_tests.faults.kinds import Kind, all_kinds
from quantlytic_tests.faults.sites import EmbeddedSite, Site
from quantlytic_tests.faults.small_disk import enter_own_mounts
from quantlytic_tests.faults.stack import PATIENCE, Stack, wait_for

_SHORT_REPEATS = 2


@dataclass
class Row:
    """A line of the table: what was done to one site, and what became of its records."""

    kinds: list[str] = field(default_factory=list)
    strikes: int = 0
    comparison: Comparison | None = None
    seconds: float | None = None
    wrong: list[str] = field(default_factory=list)


def run_round(kinds: Sequence[Kind], repeats: int, random: Random, mounts: bool) -> list[Row]:
    """Strike with these kinds on one installation, wait until all is landed, compare. One row a site."""
    root = Path(tempfile.mkdtemp(prefix="quantlytic-faults-"))
    rows: dict[type[Site], Row] = {kind.site: Row() for kind in kinds}
    for kind in kinds:
        rows[kind.site].kinds.append(kind.name)
    stack = None
    try:
        with ExitStack() as opened:
            if any(kind.site is not EmbeddedSite for kind in kinds):
                stack = opened.enter_context(Stack(root, mounts))
                _say("servers and serve are up")
            _strike_and_compare(kinds, repeats, random, root, stack, rows, opened)
    except Exception as error:  # the other kinds are tried all the same
        for row in rows.values():
            if row.comparison is None:
                row.wrong.append(f"{type(error).__name__}: {error}")
        traceback.print_exc()
    if any(row.wrong for row in rows.values()):
        _say(f"logs and data are kept in {root}")
    else:
        shutil.rmtree(root)
    return list(rows.values())


def _strike_and_compare(
    kinds: Sequence[Kind],
    repeats: int,
    random: Random,
    root: Path,
    stack: Stack | None,
    rows: dict[type[Site], Row],
    opened: ExitStack,
) -> None:
    sites: dict[type[Site], Site] = {}
    try:
        for kind in kinds:
            if kind.site not in sites:
                sites[kind.site] = opened.enter_context(kind.site(root, stack, repeats))
            opened.enter_context(kind.around(stack))
            for turn in range(repeats):
                what = kind.strike(sites[kind.site], random, turn)
                rows[kind.site].strikes += 1
                _say(f"{kind.name} {turn + 1}/{repeats}: {what}")
        for kind, site in sites.items():
            site.finish()
            began = time.monotonic()
            wait_for(lambda site=site: _caught_up(site), "everything is landed", 0.5)
            rows[kind].seconds = time.monotonic() - began
            _say(f"{site.dataset} has caught up in {rows[kind].seconds:.0f} s")
    except Exception:
        if stack is not None:
            _say(stack.situation())
        raise
    for kind, site in sites.items():
        rows[kind].comparison = site.compare()
        rows[kind].wrong += rows[kind].comparison.differences


def _caught_up(site: Site) -> bool:
    try:
        return site.waiting() == 0
    except Exception as error:  # a server that is just coming back; a lasting error runs into the time limit
        _say(f"can't look yet: {type(error).__name__}: {error}")
        return False


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


def _table(rows: Sequence[Row]) -> Table:
    table = Table("kind", "repeats", "records", "landed", "lost", "twice", "bars", "seconds", title="Faults")
    for row in rows:
        told = row.comparison
        counts = (told.records, told.landed, told.lost, told.twice, told.bars) if told else ("?",) * 5
        seconds = "not caught up" if row.seconds is None else f"{row.seconds:.0f}"
        table.add_row("\n".join(row.kinds), str(row.strikes), *map(str, counts), seconds)
    return table


def main() -> int:
    """Run what is asked for; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m quantlytic_tests.faults", description=__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="kinds whose names begin like this")
    parser.add_argument("--short", action="store_true", help=f"{_SHORT_REPEATS} repeats of each on one installation")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="of the random moments")
    options = parser.parse_args()
    kinds = [kind for kind in all_kinds() if not options.only or kind.name.startswith(tuple(options.only))]
    if not kinds:
        parser.error(f"the kinds are: {', '.join(kind.name for kind in all_kinds())}")
    no_mounts = enter_own_mounts("quantlytic_tests.faults")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    possible = [kind for kind in kinds if not (kind.needs_mounts and no_mounts)]
    _say(f"seed {options.seed}")
    random = Random(options.seed)
    rounds = [possible] if options.short else [[kind] for kind in possible]
    rows = [
        row
        for kinds_of_round in rounds
        for row in run_round(kinds_of_round, _SHORT_REPEATS if options.short else options.repeats, random, not no_mounts)
    ]
    console = Console(width=120)
    console.print(_table(rows))
    for kind in kinds:
        if kind not in possible:
            console.print(f"NOT TRIED: {kind.name}: {no_mounts}")
    wrong = [line for row in rows for line in row.wrong]
    for line in wrong:
        console.print(f"WRONG: {line}", highlight=False, markup=False)
    return 1 if wrong or any(row.seconds is None for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
