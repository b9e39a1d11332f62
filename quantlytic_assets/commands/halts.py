"""`quantlytic halt` and `quantlytic resume`: the kill switch of paper accounts, and how each of them stands."""

from __future__ import annotations

import getpass
import os
from typing import TYPE_CHECKING, Any

from rich.table import Table

from quantlytic_assets.commands.inspection import print_json
from quantlytic_assets.commands.installation import CommandError, UsageError
from quantlytic_assets.commands.migrating import bring_up_to_date
from quantlytic_assets.services.halts import HaltError, Standing, ask_to_halt, ask_to_resume, standings
from quantlytic_assets.storage.migrations.layout import OldLayout
from quantlytic_assets.universe.fields import suggestion

if TYPE_CHECKING:
    from rich.console import Console

    from quantlytic_assets.commands.installation import Installation
    from quantlytic_assets.storage.accounts import Accounts

_HELD = {True: "sold at the market", False: "kept, with its stops", None: "sold or kept, as its risk.liquidate says"}


def run_halt(installation: Installation, out: Console, name: str, reason: str | None, liquidate: bool | None) -> None:
    """Ask that a strategy's account opens no position from now on, and say what follows.

    Raises `UsageError` for a strategy that there is not.
    """
    _check(installation, name)
    standing = ask_to_halt(_accounts(installation, out), name, _user(), _given(reason), liquidate)
    _say(out, standing)
    _print(
        out,
        "From the next bar on nothing is bought or sold short, and orders that wait for it are called back; what is "
        f"held is {_HELD[liquidate]}. `quantlytic resume {name}` lets it go on.",
    )


def run_resume(installation: Installation, out: Console, name: str, reason: str | None) -> None:
    """Ask that a halted account goes on, and say so.

    Raises `UsageError` for a strategy that there is not, and `CommandError` for one that is not halted.
    """
    _check(installation, name)
    try:
        standing = ask_to_resume(_accounts(installation, out), name, _user(), _given(reason))
    except HaltError as error:
        raise CommandError(str(error)) from error
    _say(out, standing)


def show_accounts(installation: Installation, out: Console, as_json: bool) -> None:
    """Print how the account of each strategy stands."""
    rows = [_row(one) for one in standings(_accounts(installation, out), installation.universe.strategies).values()]
    if as_json:
        print_json(rows)
        return
    table = Table("strategy", "traded through", "state")
    for row in rows:
        table.add_row(row["strategy"], str(row["traded_through"] or ""), row["state"])
    out.print(table)


def show_halted(installation: Installation, out: Console) -> None:
    """Print a line for each strategy that is halted."""
    if not installation.universe.strategies:
        return
    for standing in standings(installation.resources.accounts, installation.universe.strategies).values():
        if standing.halted:
            _say(out, standing)


def _row(standing: Standing) -> dict[str, Any]:
    request = standing.request
    return {
        "strategy": standing.strategy,
        "state": standing.said,
        "halted": standing.halted,
        "since": standing.since,
        "requested_by": request.requested_by if request else None,
        "requested_at": request.requested_at if request else None,
        "reason": request.reason if request else None,
        "takes_effect_with_next_bar": standing.waits,
        "traded_through": standing.account.session if standing.account else None,
    }


def _check(installation: Installation, name: str) -> None:
    universe = installation.universe
    if name not in universe.strategies:
        hint = suggestion(name, tuple(universe.strategies)) if universe.strategies else "there is none"
        raise UsageError(f"no strategy {name!r} in {universe.path}; {hint}")


def _accounts(installation: Installation, out: Console) -> Accounts:
    """The accounts, after a migration where that is needed; else the lake is not opened, so that a halt never waits."""
    try:
        return installation.resources.accounts
    except OldLayout:
        bring_up_to_date(installation, out)
        return installation.resources.accounts


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container's user may have no name.
        return f"user {os.getuid()}"


def _given(reason: str | None) -> str | None:
    """The reason on one line, None where it says nothing."""
    return " ".join((reason or "").split()) or None


def _say(out: Console, standing: Standing) -> None:
    _print(out, f"{standing.strategy}: {standing.said}")


def _print(out: Console, text: str) -> None:
    out.print(text, highlight=False, markup=False, soft_wrap=True)
