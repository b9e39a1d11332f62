"""The kinds of fault. Each strikes once at a time, at a random moment, and says what it hit."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from random import Random
from typing import Any

import boto3
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import ClientError

from quantlytic_tests.end_to_end.browser import Browser
from quantlytic_tests.faults.sites import EmbeddedSite, FedSite, NumberedSite, Site
from quantlytic_tests.faults.stack import Landing, Stack, wait_for
from quantlytic_tests.faults.supervisor import descendants, kill

# What MinIO leaves unused when it keeps its own minimum free; on the small disk one per cent is more.
_UNDER_MINIOS_MINIMUM = 1_000_000
# Landing runs that are killed in a row: one with both of its repeats, what is asked for anew then, and its repeat.
_RUNS_IN_A_ROW = 5
# Seconds, and a few more, after which it gives up a database that is away.
_DAGSTER_TRIES_TO_CONNECT = 15


class Moments:
    """Random moments, the same ones for the same seed. `pace` shortens all waits."""

    def __init__(self, seed: str, pace: float):
        self._random = Random(seed)
        self._pace = pace

    def seconds(self, least: float, most: float) -> float:
        """A length of time."""
        return self._random.uniform(least, most) * self._pace

    def wait(self, most: float) -> float:
        """Wait for up to so many seconds; returns how long it was."""
        waited = self.seconds(0, most)
        time.sleep(waited)
        return waited

    def mostly(self) -> bool:
        """Three times out of four."""
        return self._random.random() < 0.75


@dataclass(frozen=True)
class Kind:
    """`strike(site, moments, turn)` returns what it hit. `around` is entered before the first strike of the kind."""

    name: str
    site: type[Site]
    strike: Callable[[Any, Moments, int], str]
    around: Callable[[Stack], AbstractContextManager[object]] = nullcontext
    needs_small_disk: bool = False


def _landing_run(site: NumberedSite, moments: Moments, turn: int) -> str:
    """After some in a row nothing is killed until what they left is landed.

    Were all of them killed, the sensor would wait ever longer, minutes in the end, and less and less would be struck.
    """
    if turn and turn % _RUNS_IN_A_ROW == 0:
        ends = site.ends()
        wait_for(lambda: site.waiting(ends) == 0, "what killed runs left is landed", 1)
    while True:
        landing = site.stack.landing()
        waited = moments.wait(1)
        # It may have ended by itself meanwhile.
        if kill(landing.pid):
            return f"run {landing.run[:8]} killed {waited:.2f} s after it was seen at work"


def _daemon(site: NumberedSite, moments: Moments, turn: int) -> str:
    """By turns the daemon alone, and with all that it has started, a landing among it, as its container's end does."""
    if turn % 2 == 0:
        if moments.mostly():
            site.stack.landing()
        moments.wait(2)
        pid = site.stack.daemon()
        kill(pid)
        return f"daemon {pid} killed"
    pid = wait_for(lambda: _daemon_that_lands(site.stack), "a landing run of the daemon is at work")
    moments.wait(1)
    killed = sum(kill(one) for one in (pid, *descendants(pid)))
    return f"daemon {pid} killed with its {killed - 1} processes"


def _daemon_that_lands(stack: Stack) -> int | None:
    """The daemon, when a landing run at work is its own and not of one that was killed before."""
    landing, pid = stack.landing(), stack.daemon()
    return pid if landing.pid in descendants(pid) else None


def _feed(site: FedSite, moments: Moments, _turn: int) -> str:
    """Three times out of four it has connected again since the last time."""
    if moments.mostly():
        wait_for(site.connected_anew, "the feed has connected")
    moments.wait(6)
    pid = wait_for(lambda: site.stack.supervisor.pid("feed"), "the feed runs")
    kill(pid)
    return f"feed {pid} killed"


def _restarted(server: str, mid_landing: bool = False) -> Callable[[NumberedSite, Moments, int], str]:
    """A strike that stops a server in good order, and the next time kills it; and starts it again after a while.

    Three times out of four, or always, a landing is at work just then.
    """

    def strike(site: NumberedSite, moments: Moments, turn: int) -> str:
        if mid_landing or moments.mostly():
            site.stack.landing()
        moments.wait(1)
        end = site.stack.servers.kill if turn % 2 else site.stack.servers.stop
        end(server)
        away = moments.wait(6)
        site.stack.servers.start(server)
        return f"{server} {'killed' if turn % 2 else 'stopped'}, started again after {away:.1f} s"

    return strike


def _killed_without_postgres(site: NumberedSite, moments: Moments, turn: int) -> str:
    """By turns in good order and not: Postgres ends, then the landing run, whose end nobody can write down at first."""
    end = site.stack.servers.kill if turn % 2 else site.stack.servers.stop
    while True:
        landing = site.stack.landing()
        end("postgres")
        killed = kill(landing.pid)
        # This waits until all parts of Dagster that report the run have given up.
        time.sleep(_DAGSTER_TRIES_TO_CONNECT)
        moments.wait(4)
        site.stack.servers.start("postgres")
        if killed:
            return f"run {landing.run[:8]} killed after Postgres was {'killed' if turn % 2 else 'stopped'}"


def _minio_full(site: NumberedSite, moments: Moments, turn: int) -> str:
    """By turns too few bytes for MinIO's own minimum, no file that could be made, and no byte at all."""
    disk = site.stack.disk
    ways: list[tuple[str, Callable[[], None]]] = [
        ("less than its minimum free", lambda: disk.fill(_UNDER_MINIOS_MINIMUM)),
        ("no file left", disk.use_up_files),
        ("no byte left", disk.fill),
    ]
    name, fill = ways[turn % len(ways)]
    # Endpoint and keys are in the environment.
    store = boto3.client("s3", config=Config(retries={"total_max_attempts": 1}))
    site.stack.landing()
    moments.wait(1)
    try:
        # What others delete meanwhile is taken as well.
        problem = wait_for(lambda: fill() or _problem(store), "MinIO does not let itself be written", 0.2)
        full = moments.seconds(2, 8)
        until = time.monotonic() + full
        while time.monotonic() < until:
            fill()
            time.sleep(0.2)
    finally:
        disk.free()
    return f"MinIO had {name} for {full:.1f} s ({problem})"


def _problem(store: BaseClient) -> str:
    """The code with which the store does not let itself be written; empty where it writes."""
    try:
        store.put_object(Bucket=os.environ["QUANTLYTIC_S3_BUCKET"], Key="full/probe", Body=b"probe")
    except ClientError as error:
        return error.response["Error"]["Code"]
    return ""


def _embedded_full(site: EmbeddedSite, moments: Moments, turn: int) -> str:
    """By turns no byte, and no file that could be made. Full until a landing has ended with an error at least."""
    moments.wait(3)
    fill = site.disk.use_up_files if turn % 2 else site.disk.fill
    before = site.supervisor.restarts.total()
    try:
        full = moments.seconds(1, 5)
        until = time.monotonic() + full
        while time.monotonic() < until or site.supervisor.restarts.total() == before:
            fill()
            time.sleep(0.1)
    finally:
        site.disk.free()
    halves = site.half_objects()
    assert not halves, f"half objects: {halves}"
    errors = site.supervisor.restarts.total() - before
    return f"{'no file' if turn % 2 else 'no byte'} left for {full:.1f} s, {errors} landings ended with an error"


class _TwoDaemons:
    """`quantlytic serve` a second time, with a port of its own, as somebody might by mistake.

    That is all: each strike is another landing run that was seen at work.
    """

    def __init__(self) -> None:
        self._last: Landing | None = None
        self._second: Browser

    @contextmanager
    def around(self, stack: Stack) -> Iterator[None]:
        self._second = Browser(stack.serve("second_serve"))
        yield
        stack.supervisor.stop("second_serve")

    def strike(self, site: NumberedSite, _moments: Moments, _turn: int) -> str:
        wait_for(self._second.location_loaded, "the second one is up", 0.5)
        self._last = site.stack.landing(other_than=self._last)
        return f"run {self._last.run[:8]} landed under two daemons"


def all_kinds() -> list[Kind]:
    """All kinds, fresh, in the order in which they are tried."""
    twice = _TwoDaemons()
    return [
        Kind("landing run killed", NumberedSite, _landing_run),
        Kind("daemon killed", NumberedSite, _daemon),
        Kind("feed killed", FedSite, _feed),
        Kind("Kafka restarted", NumberedSite, _restarted("kafka")),
        Kind("MinIO stopped mid-write", NumberedSite, _restarted("minio", mid_landing=True)),
        Kind("Postgres restarted", NumberedSite, _restarted("postgres")),
        Kind("Postgres away, landing run killed", NumberedSite, _killed_without_postgres),
        Kind("disk full, MinIO", NumberedSite, _minio_full, needs_small_disk=True),
        Kind("disk full, embedded", EmbeddedSite, _embedded_full, needs_small_disk=True),
        Kind("two daemons", NumberedSite, twice.strike, twice.around),
    ]
