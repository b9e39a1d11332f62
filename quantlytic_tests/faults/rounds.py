"""A round: an installation is struck again and again; then everything must be landed by itself, and is counted."""

from __future__ import annotations

import shutil
import tempfile
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from quantlytic_tests.faults import stack as stacks
from quantlytic_tests.faults.comparison import Comparison
from quantlytic_tests.faults.kinds import Kind, Moments
from quantlytic_tests.faults.sites import EmbeddedSite, Site
from quantlytic_tests.faults.stack import Stack, wait_for


@dataclass(frozen=True)
class Plan:
    """How often each kind strikes, how fast, and why no small disk can be mounted ('': it can)."""

    seed: int
    repeats: int
    pace: float
    no_mounts: str
    clean_bars_of_first_only: bool = False


@dataclass
class Row:
    """What was done to one site, and what became of its records."""

    strikes: dict[str, int] = field(default_factory=dict)
    not_tried: dict[str, str] = field(default_factory=dict)
    comparison: Comparison | None = None
    seconds: float | None = None
    wrong: list[str] = field(default_factory=list)


def run_round(kinds: Sequence[Kind], plan: Plan) -> list[Row]:
    """Strike with these kinds, wait until all is landed, compare. One row a site; sites are struck at the same time."""
    root = Path(tempfile.mkdtemp(prefix="quantlytic-faults-"))
    sites = list(dict.fromkeys(kind.site for kind in kinds))
    rows = [Row() for _ in sites]
    try:
        with ExitStack() as opened:
            stack = None
            if any(site is not EmbeddedSite for site in sites):
                stack = opened.enter_context(Stack(root, mounts=not plan.no_mounts))
                say("servers and serve are up")
            parts = [
                _Part(site, [kind for kind in kinds if kind.site is site], plan, root, stack, row, opened)
                for site, row in zip(sites, rows, strict=True)
            ]
            _strike_all(parts)
            for i, part in enumerate(parts):
                part.settle(clean_bars=not (plan.clean_bars_of_first_only and i))
    except Exception as error:  # the other kinds are tried all the same
        traceback.print_exc()
        rows[0].wrong.append(f"{type(error).__name__}: {error}")
    except BaseException:
        shutil.rmtree(root, ignore_errors=True)
        raise
    if any(row.wrong for row in rows):
        say(f"logs are kept in {root}")
    else:
        shutil.rmtree(root)
    return rows


def _strike_all(parts: list[_Part]) -> None:
    """Strike all sites at once. The first one in this thread, which is interrupted when the program is to end."""
    with ThreadPoolExecutor(len(parts)) as others:
        try:
            running = [others.submit(part.strike) for part in parts[1:]]
            parts[0].strike()
        except BaseException:
            stacks.interrupted.set()
            raise
        for one in running:
            one.result()


@dataclass
class _Part:
    """One site of a round, with its kinds. What goes wrong with it is noted in its row."""

    site_type: type[Site]
    kinds: list[Kind]
    plan: Plan
    root: Path
    stack: Stack | None
    row: Row
    opened: ExitStack
    site: Site | None = None

    def strike(self) -> None:
        """Open the site, strike as often as is planned, let no more records come in."""
        possible = []
        for kind in self.kinds:
            if reason := self._impossible(kind):
                self.row.not_tried[kind.name] = reason
            else:
                possible.append(kind)
        if not possible:
            return
        try:
            self.site = self.opened.enter_context(self.site_type(self.root, self.stack, self.plan.repeats))
            for kind in possible:
                self._strike_with(kind, self.site)
            self.site.finish()
        except Exception as error:
            self._note(error)

    def _strike_with(self, kind: Kind, site: Site) -> None:
        self.row.strikes[kind.name] = 0
        moments = Moments(f"{self.plan.seed} {kind.name}", self.plan.pace)
        self.opened.enter_context(kind.around(self.stack))
        for turn in range(self.plan.repeats):
            what = kind.strike(site, moments, turn)
            self.row.strikes[kind.name] += 1
            say(f"{kind.name} {turn + 1}/{self.plan.repeats}: {what}")

    def settle(self, clean_bars: bool) -> None:
        """Wait until all is landed by itself, and compare."""
        if self.site is None or self.row.wrong:
            return
        try:
            began = time.monotonic()
            wait_for(lambda: _caught_up(self.site), "everything is landed", 0.5)
            self.row.seconds = time.monotonic() - began
            say(f"{', '.join(self.row.strikes)}: caught up in {self.row.seconds:.0f} s")
            self.row.comparison = self.site.compare(clean_bars)
            self.row.wrong += self.row.comparison.differences
        except Exception as error:
            self._note(error)

    def _note(self, error: Exception) -> None:
        traceback.print_exception(error)
        self.row.wrong.append(f"{', '.join(self.row.strikes)}: {type(error).__name__}: {error}")
        if self.stack is not None:
            say(self.stack.situation())

    def _impossible(self, kind: Kind) -> str:
        if kind.needs_small_disk and self.plan.no_mounts:
            return self.plan.no_mounts
        no_disk = self.stack is not None and self.stack.disk is None
        if kind.needs_small_disk and no_disk and kind.site is not EmbeddedSite:
            return "MinIO is Docker's here, and keeps its data where we can't fill it up (QUANTLYTIC_SERVICES=native)"
        return ""


def _caught_up(site: Site) -> bool:
    try:
        return site.waiting() == 0
    except Exception as error:  # a server that is just coming back; a lasting error runs into the time limit
        say(f"can't look yet: {type(error).__name__}: {error}")
        return False


def say(line: str) -> None:
    """A line with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)
