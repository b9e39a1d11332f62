"""`quantlytic notify`: a message to every address, to see that they work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantlytic_assets.commands.installation import CommandError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from quantlytic_assets.commands.installation import Installation


def run_notify(installation: Installation, out: Console, text: str) -> None:
    """Send `text` to all; raises `CommandError` naming the addresses that did not take it."""
    notifier = installation.resources.notifier
    if not len(notifier):
        raise UsageError("QUANTLYTIC_NOTIFY is not set; give it addresses such as json://host/path or mailto://…")
    failed = notifier.send("Quantlytic", text)
    if failed:
        raise CommandError("\n".join(f"not taken by {one}" for one in failed))
    out.print(f"taken by {len(notifier)} of {len(notifier)} addresses", highlight=False)
