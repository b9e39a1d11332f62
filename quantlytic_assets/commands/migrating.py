"""`quantlytic migrate`, and what every command that writes does first."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from quantlytic_assets.commands.installation import Installation
    from quantlytic_assets.services.migrations import Change


def run_migrate(installation: Installation, out: Console, dry_run: bool) -> None:
    """Say what is to be changed and, unless it is a dry run, change it."""
    from quantlytic_assets.services.migrations import migrate, pending_changes

    pending = pending_changes(installation.resources)
    if not pending:
        out.print("nothing to do: state database and lake have this version's layout")
        return
    _show(out, "to do" if dry_run else "migrating", pending)
    if dry_run:
        out.print("nothing was changed; `quantlytic migrate` does it")
        return
    migrate(installation.resources)
    out.print(f"done: {len(pending)} change{'s' if len(pending) > 1 else ''}")


def bring_up_to_date(installation: Installation, out: Console) -> None:
    """Migrate an installation of an older version before a command writes to it, and say so.

    Raises `NewLayout` where it is of a newer version.
    """
    from quantlytic_assets.services.migrations import open_up_to_date

    _show(out, "migrated", open_up_to_date(installation.resources))


def _show(out: Console, word: str, changes: Sequence[Change]) -> None:
    for change in changes:
        out.print(f"{word}: {change.part}: {change.title}", highlight=False, markup=False, soft_wrap=True)
