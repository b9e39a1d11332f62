"""`quantlytic publish`: the hot store made from the lake, all of it or a dataset with its strategies."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from quantlytic_assets.services.publishing import Published

if TYPE_CHECKING:
    from rich.console import Console

    from quantlytic_assets.commands.installation import Installation


def run_publish(installation: Installation, out: Console, dataset: str | None) -> None:
    """Publish a dataset and its strategies, by default all; raises `UsageError` for a dataset that there is not."""
    from quantlytic_assets.services.rebuilding import publish_everything

    chosen = [installation.dataset(dataset)] if dataset else list(installation.universe.datasets.values())
    started = time.monotonic()

    def say(name: str, done: Published) -> None:
        out.print(
            f"{name}: {done.read:,} rows read, {done.updated.rows:,} written, {done.updated.told:,} revisions told",
            highlight=False,
        )

    publish_everything(installation.resources, installation.universe, chosen, say)
    hot = installation.resources.hot.path
    out.print(f"published to {hot} in {time.monotonic() - started:.1f} s", highlight=False, soft_wrap=True)
