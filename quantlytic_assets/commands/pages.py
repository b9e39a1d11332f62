"""`quantlytic pages`: charts, reports, dbt docs and the way to MLflow, as pages on 127.0.0.1."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantlytic_assets.commands.installation import CommandError

if TYPE_CHECKING:
    from rich.console import Console

    from quantlytic_assets.commands.installation import Installation


def run_pages(installation: Installation, out: Console, port: int, host: str = "127.0.0.1") -> None:
    """Serve the pages until SIGINT or SIGTERM. Raises `CommandError` where the port can't be had."""
    import socket

    import uvicorn

    from quantlytic_assets.pages.app import make_app

    # A wrong universe is reported before anything listens.
    _ = installation.universe
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        raise CommandError(f"port {port} on {host} can't be had ({error}); set QUANTLYTIC_PAGES_PORT") from None
    out.print(f"pages: http://{host}:{port}   end with Ctrl-C", soft_wrap=True)
    app = make_app(installation.resources)
    uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[listening])
