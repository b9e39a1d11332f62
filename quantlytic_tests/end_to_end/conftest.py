"""The installations that the end-to-end tests share.

Building one takes a quarter of a minute and more. The installations of a module's tests are begun together, two at a
time, when the first of them is wanted, and each is made once. A run of a single test builds only what it needs. Only
the module's tests are looked at: each of pytest-xdist's workers collects everything and runs a part.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from quantlytic_tests.end_to_end import scenarios
from quantlytic_tests.end_to_end.installations import Crew, Installed
from quantlytic_tests.end_to_end.scenarios import Outcome

_FROM_NOTHING = {"killed": scenarios.killed, "session_by_session": scenarios.session_by_session}
_FROM_NOTHING_LAST = {"twice_at_once": scenarios.twice_at_once}
_FROM_BASE = {"late": scenarios.late, "rebuilt": scenarios.rebuilt, "fed": scenarios.fed}


def _base(root: Path, shared: Path) -> Installed:
    """`scenarios.built`. The first of pytest-xdist's workers builds it for all, and each works on a copy."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return scenarios.built(root)
    with FileLock(shared.with_suffix(".lock")):
        built, done = Installed(shared, scenarios.BASE), shared / "done"
        if not done.exists():
            scenarios.built(shared)
            done.touch()
        return built.copied_to(root, with_lake=True)


@pytest.fixture(scope="session")
def crew() -> Iterator[Crew]:
    """Who makes the scenarios."""
    working = Crew()
    yield working
    working.end()


@pytest.fixture(scope="module")
def begun(request: pytest.FixtureRequest, crew: Crew, tmp_path_factory: pytest.TempPathFactory) -> Crew:
    """All scenarios that the module's tests name, begun."""
    wanted = {
        name
        for item in request.session.items
        if item.path == request.path
        for name in getattr(item, "fixturenames", ())
    }
    shared = tmp_path_factory.getbasetemp().parent / "base"

    def begin(name: str, work: Callable[[Path], Any]) -> None:
        if name in wanted:
            crew.begin(name, lambda: work(tmp_path_factory.mktemp(name)))

    if wanted & {*_FROM_BASE}:
        wanted.add("base")
    begin("base", lambda root: _base(root, shared))
    begin("served", lambda root: scenarios.built(root, "services"))
    for name, work in _FROM_NOTHING.items():
        begin(name, work)
    for name, from_base in _FROM_BASE.items():
        begin(name, lambda root, from_base=from_base: from_base(root, crew.outcome("base")))
    for name, work in _FROM_NOTHING_LAST.items():
        begin(name, work)
    return crew


def _outcome(name: str) -> Callable[..., Any]:
    """A fixture: the outcome of a scenario, which tests only look at."""

    @pytest.fixture(scope="module", name=name)
    def outcome(begun: Crew) -> Installed | Outcome:
        return begun.outcome(name)

    return outcome


base = _outcome("base")
served = _outcome("served")
killed = _outcome("killed")
session_by_session = _outcome("session_by_session")
twice_at_once = _outcome("twice_at_once")
late = _outcome("late")
rebuilt = _outcome("rebuilt")
fed = _outcome("fed")
