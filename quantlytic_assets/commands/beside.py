"""Strategies that are made in a second process, beside the one that makes datasets: neither waits for the other.

The process compiles the core features and the trading engine first: the machine code of a new installation takes as
long as landing bars does. Who computes or trades before it is done, or after it has failed, compiles as ever. What its
progress bars would show, it tells the process that has the terminal.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from threading import Thread
from typing import TYPE_CHECKING, Any

from quantlytic_assets.commands.installation import CommandError, Installation

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from types import TracebackType

    from rich.progress import Progress, TaskID

    from quantlytic_assets.commands.backfill import Outcome


class Beside:
    """The second process, from `with` on; what it is at work on when that is left is killed."""

    def __init__(self, progress: Progress):
        context = multiprocessing.get_context("spawn")
        self._told, told = context.Pipe(duplex=False)
        self._progress = progress
        self._pool = ProcessPoolExecutor(1, context, _begin, (told,))
        others = multiprocessing.active_children()
        self._pool.submit(_compile)
        self._started = [process for process in multiprocessing.active_children() if process not in others]
        # The other process has its own end of the line by now: when that is closed, nobody will say anything more.
        told.close()
        self._asked: list[Future[tuple[Outcome, str]]] = []
        self._listener = Thread(target=self._listen, daemon=True)
        self._listener.start()

    def __enter__(self) -> Beside:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in self._started:
            process.kill()
        self._listener.join()

    def make(self, strategies: Sequence[str]) -> None:
        """Make what is missing or out of date of strategies, in this order, up to one that fails.

        Raises `CommandError` where the process was killed, as `outcomes` does.
        """
        with _alive():
            self._asked.append(self._pool.submit(_make, list(strategies)))

    def outcomes(self) -> Iterator[tuple[Outcome, str]]:
        """What came of each call of `make`, and what was said of partitions that can't be made."""
        with _alive():
            for asked in self._asked:
                yield asked.result()

    def _listen(self) -> None:
        tasks: dict[int, TaskID] = {}
        while True:
            try:
                task, what, arguments = self._told.recv()
            except EOFError:
                return
            if what == "add_task":
                tasks[task] = self._progress.add_task(**arguments)
            elif what == "update":
                self._progress.update(tasks[task], **arguments)
            else:
                self._progress.advance(tasks[task])


@contextmanager
def _alive() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool:
        raise CommandError("the process that makes strategies was killed; run the command again") from None


class _Told:
    """Tells over a line what a progress bar is told, so far as `Backfill` does."""

    def __init__(self, line: Connection):
        self._line = line
        self._tasks = 0

    def add_task(self, description: str, /, *, total: float) -> int:
        self._tasks += 1
        return self._say(self._tasks, "add_task", description=description, total=total)

    def update(self, task: int, /, *, description: str) -> None:
        self._say(task, "update", description=description)

    def advance(self, task: int, /) -> None:
        self._say(task, "advance")

    def _say(self, task: int, what: str, **arguments: Any) -> int:
        self._line.send((task, what, arguments))
        return task


_line: Connection


def _begin(line: Connection) -> None:
    global _line
    _line = line
    # The other core is at work on datasets: threads of a training that wait for one another would take half as much
    # processor time again, and be done no sooner.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Who is interrupted at the terminal is the other process, which ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _compile() -> None:
    from quantlytic_assets.features import batch
    from quantlytic_assets.trading.engine import run

    batch.prepare()
    run.prepare()


@cache
def _installation() -> Installation:
    return Installation()


def _make(names: Sequence[str]) -> tuple[Outcome, str]:
    from rich.console import Console

    # The terminal belongs to the other process.
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        from quantlytic_assets.commands.backfill import Backfill

        said = io.StringIO()
        backfill = Backfill(_installation(), Console(file=said, width=1_000_000), _Told(_line))
        for name in names:
            if not backfill.outcome.failures:
                backfill.strategy(_installation().universe.strategies[name], only_pending=True)
    return backfill.outcome, said.getvalue()
