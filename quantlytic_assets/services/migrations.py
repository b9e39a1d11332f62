"""Bringing an installation's layouts up to date: the state database first, then the lake.

What the changes are and how one is added is said in `storage.migrations`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantlytic_assets.storage.migrations.lake import step_title
from quantlytic_assets.storage.migrations.layout import OldLayout
from quantlytic_assets.storage.migrations.state import (
    is_empty,
    pending_revisions,
    state_revisions,
    upgrade_state,
)
from quantlytic_assets.storage.state import state_engine

if TYPE_CHECKING:
    from quantlytic_assets.resources import Resources


@dataclass(frozen=True)
class Change:
    """A change of one part's layout: `part` is `state` or `lake`."""

    part: str
    title: str


def pending_changes(resources: Resources) -> list[Change]:
    """What `migrate` would do, in that order; nothing for parts that do not exist yet.

    Raises `NewLayout` where a part is of a newer version.
    """
    engine = state_engine(resources.state_url)
    revisions = [] if is_empty(engine) else pending_revisions(engine)
    engine.dispose()
    titles = state_revisions()
    return [
        *(Change("state", titles[revision]) for revision in revisions),
        *(Change("lake", step_title(step)) for step in resources.lake.pending_migrations()),
    ]


def migrate(resources: Resources) -> list[Change]:
    """Apply all pending changes and return them. Killed at any moment, the next call goes on from there.

    Raises `NewLayout` where a part is of a newer version; nothing is changed then.
    """
    with resources.lock("migrate"):
        pending = pending_changes(resources)
        if any(change.part == "state" for change in pending):
            engine = state_engine(resources.state_url)
            upgrade_state(engine)
            engine.dispose()
        resources.lake.migrate()
    return pending


def open_up_to_date(resources: Resources) -> list[Change]:
    """Open state and lake for writing, after migrating them where their layout is an older one; returns the changes.

    Raises `NewLayout` where a part is of a newer version.
    """
    try:
        _ = resources.attempts
        resources.lake.connect()
    except OldLayout:
        return migrate(resources)
    return []
