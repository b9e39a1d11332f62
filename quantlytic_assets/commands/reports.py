"""A strategy's report as a file, for whoever runs a command and no server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from quantlytic_assets.services.accounts import read_account

if TYPE_CHECKING:
    from quantlytic_assets.commands.installation import Installation
    from quantlytic_assets.universe.models import Strategy


def report_file(installation: Installation, strategy: Strategy, traded: float) -> Path:
    """`reports/<strategy>.html`, written again where it is older than `traded` (seconds since 1970)."""
    path = installation.settings.directory("reports") / f"{strategy.name}.html"
    if not path.exists() or path.stat().st_mtime < traded:
        dataset = installation.universe.datasets[strategy.dataset]
        account = read_account(installation.resources.lake, dataset, strategy)
        if account is not None:
            account.report(path)
    return path
