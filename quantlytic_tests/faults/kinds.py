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


@dataclass(frozen=True)
class Kind:
    """`strike(site, random, turn)` returns what it hit. `around` is entered before the first strike of the kind."""

    name: str
    site: type[Site]
    strike: Callable[[Any, Random, int], str]
    around: Callable[[Stack], AbstractContextManager[object]] = nullcontext
    needs_mounts: bool = False


def _moment(site: NumberedSite, random: Random, seconds: float, always_landing: bool = False) -> None:
    """Return at a random moment; three times out of four, or always, it is one when a landing is at work."""
    if always_landing or random.random() < 0.75:
        site.stack.landing()
    time.sleep(random.uniform(0, seconds))


def _landing_run(site: NumberedSite, random: Random, _turn: int) -> str:
    while True:
        landing = site.stack.landing()
        wait = random.uniform(0, 1)
        time.sleep(wait)
        # It may have ended by itself meanwhile.
        if kill(landing.pid):
            return f"run {landing.run[:8]} killed {wait:.2f} s after it was seen at work"


def _daemon(site: NumberedSite, random: Random, turn: int) -> str:
    """By turns the daemon alone, and with all that it has started, a landing among it, as its container's end does."""
    if turn % 2 == 0:
        _moment(site, random, 2)
        pid = site.stack.daemon()
        kill(pid)
        return f"daemon {pid} killed"
    pid = wait_for(lambda: _daemon_that_lands(site.stack), "a landing run of the daemon is at work")
    time.sleep(random.uniform(0, 1))
    started = descendants(pid)
    killed = sum(kill(one) for one in (pid, *started))
    return f"daemon {pid} killed with its {killed - 1} processes"


def _daemon_that_lands(stack: Stack) -> int | None:
    """The daemon, when a landing run at work is its own and not of one that was killed before."""
    landing, pid = stack.landing(), stack.daemon()
    return pid if landing.pid in descendants(pid) else None


def _feed(site: FedSite, random: Random, _turn: int) -> str:
    """Three times out of four it has connected again since the last time."""
    if random.random() < 0.75:
        wait_for(site.connected_anew, "the feed has connected")
    time.sleep(random.uniform(0, 6))
    pid = wait_for(lambda: site.stack.supervisor.pid("feed"), "the feed runs")
    kill(pid)
    return f"feed {pid} killed"


def _restarted(server: str) -> Callable[[NumberedSite, Random, int], str]:
    """A strike that stops a server in good order, and the next time kills it; and starts it again after a while."""

    def strike(site: NumberedSite, random: Random, turn: int) -> str:
        _moment(site, random, 1, always_landing=server == "minio")
        end = site.stack.servers.kill if turn % 2 else site.stack.servers.stop
        end(server)
        away = random.uniform(0, 6)
        time.sleep(away)
        site.stack.servers.start(server)
        return f"{server} {'killed' if turn % 2 else 'stopped'}, started again after {away:.1f} s"

    return strike


def _minio_full(site: NumberedSite, random: Random, turn: int) -> str:
    """By turns too few bytes for MinIO's own minimum, none at all, and no file that could be made."""
    disk = site.stack.disk
    ways: list[tuple[str, Callable[[], None]]] = [
        ("less than its minimum free", lambda: disk.fill(_UNDER_MINIOS_MINIMUM)),
        ("no file left", disk.use_up_files),
        ("no byte left", disk.fill),
    ]
    name, fill = ways[turn % len(ways)]
    _moment(site, random, 1, always_landing=True)
    store = _s3()
    try:
        # What others delete meanwhile is taken as well.
        refusal = wait_for(lambda: fill() or _refusal(store), "MinIO refuses to write", 0.2)
        full = random.uniform(2, 8)
        until = time.monotonic() + full
        while time.monotonic() < until:
            fill()
            time.sleep(0.2)
    finally:
        disk.free()
    return f"MinIO had {name} for {full:.1f} s ({refusal})"


def _s3() -> BaseClient:
    # Endpoint and keys are in the environment.
    return boto3.client("s3", config=Config(retries={"total_max_attempts": 1}))


def _refusal(store: BaseClient) -> str:
    """The code with which the store refuses to write; empty where it writes."""
    try:
        store.put_object(Bucket=os.environ["QUANTLYTIC_S3_BUCKET"], Key="full/probe", Body=b"probe")
    except ClientError as error:
        return error.response["Error"]["Code"]
    return ""


def _embedded_full(site: EmbeddedSite, random: Random, turn: int) -> str:
    time.sleep(random.uniform(0.5, 2.5))
    fill = site.disk.use_up_files if turn % 2 else site.disk.fill
    before = site.supervisor.restarts.total()
    try:
        full = random.uniform(1, 5)
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


@contextmanager
def _second_serve(stack: Stack) -> Iterator[None]:
    """`quantlytic serve` a second time, with a port of its own, as somebody might by mistake."""
    page = Browser(stack.serve("second_serve"))
    wait_for(page.location_loaded, "the second one is up")
    yield
    stack.supervisor.stop("second_serve")


class _Landings:
    """A strike of nothing but two daemons: each repeat is another landing run that was at work."""

    def __init__(self) -> None:
        self._last: Landing | None = None

    def __call__(self, site: NumberedSite, _random: Random, _turn: int) -> str:
        self._last = site.stack.landing(other_than=self._last)
        return f"run {self._last.run[:8]} landed under two daemons"


def all_kinds() -> list[Kind]:
    """All kinds, fresh, in the order in which they are tried."""
    return [
        Kind("landing run killed", NumberedSite, _landing_run),
        Kind("daemon killed", NumberedSite, _daemon),
        Kind("feed killed", FedSite, _feed),
        Kind("Kafka restarted", NumberedSite, _restarted("kafka")),
        Kind("MinIO stopped mid-write", NumberedSite, _restarted("minio")),
        Kind("Postgres restarted", NumberedSite, _restarted("postgres")),
        Kind("disk full, MinIO", NumberedSite, _minio_full, needs_mounts=True),
        Kind("disk full, embedded", EmbeddedSite, _embedded_full, needs_mounts=True),
        Kind("two daemons", NumberedSite, _Landings(), _second_serve),
    ]
