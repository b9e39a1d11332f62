"""The installations that the end-to-end tests share.

Building one takes a quarter of a minute and more. Those that the collected tests ask for are begun together, two at
a time, when the first of them is wanted; a run of a single test builds only what it needs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from quantlytic_tests.end_to_end import scenarios
from quantlytic_tests.end_to_end.installations import Crew, Installed
from quantlytic_tests.end_to_end.scenarios import Outcome

_FROM_NOTHING = {"killed": scenarios.killed, "session_by_session": scenarios.session_by_session}
_FROM_NOTHING_LAST = {"twice_at_once": scenarios.twice_at_once}
_FROM_BASE = {"late": scenarios.late, "rebuilt": scenarios.rebuilt, "fed": scenarios.fed}


def _base(root: Path, shared: Path) -> Installed:
    """`scenarios.built`. Of pytest-xdist's workers the first builds it for all, and each works on a copy."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return scenarios.built(root)
    with FileLock(shared.with_suffix(".lock")):
        built, done = Installed(shared, scenarios.BASE), shared / "done"
        if not done.exists():
            scenarios.built(shared)
            done.touch()
        return built.copied_to(root, with_lake=True)


@pytest.fixture(scope="session")
def crew(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    """All scenarios that the collected tests name, begun."""
    wanted = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
    working = Crew()
    names = ("base", "served", *_FROM_NOTHING, *_FROM_BASE, *_FROM_NOTHING_LAST)
    roots = {name: tmp_path_factory.mktemp(name) for name in names}
    if wanted & {"base", *_FROM_BASE}:
        shared = tmp_path_factory.getbasetemp().parent / "base"
        working.begin("base", lambda: _base(roots["base"], shared))
    if "served" in wanted:
        working.begin("served", lambda: scenarios.built(roots["served"], "services"))
    for name, work in _FROM_NOTHING.items():
        if name in wanted:
            working.begin(name, lambda work=work, name=name: work(roots[name]))
    for name, work in _FROM_BASE.items():
        if name in wanted:
            working.begin(name, lambda work=work, name=name: work(roots[name], working.outcome("base")))
    for name, work in _FROM_NOTHING_LAST.items():
        if name in wanted:
            working.begin(name, lambda work=work, name=name: work(roots[name]))
    yield working
    working.end()


@pytest.fixture(scope="session")
def base(crew: Crew) -> Installed:
    """`scenarios.built`; tests only read it."""
    return crew.outcome("base")


@pytest.fixture(scope="session")
def served(crew: Crew) -> Installed:
    """`scenarios.built` with the profile `services`; tests only read it."""
    return crew.outcome("served")


@pytest.fixture(scope="session")
def rebuilt(crew: Crew) -> Outcome:
    """`scenarios.rebuilt`."""
    return crew.outcome("rebuilt")


@pytest.fixture(scope="session")
def session_by_session(crew: Crew) -> Outcome:
    """`scenarios.session_by_session`."""
    return crew.outcome("session_by_session")


@pytest.fixture(scope="session")
def killed(crew: Crew) -> Outcome:
    """`scenarios.killed`."""
    return crew.outcome("killed")


@pytest.fixture(scope="session")
def twice_at_once(crew: Crew) -> Outcome:
    """`scenarios.twice_at_once`."""
    return crew.outcome("twice_at_once")


@pytest.fixture(scope="session")
def fed(crew: Crew) -> Outcome:
    """`scenarios.fed`."""
    return crew.outcome("fed")


@pytest.fixture(scope="session")
def late(crew: Crew) -> Outcome:
    """`scenarios.late`."""
    return crew.outcome("late")
