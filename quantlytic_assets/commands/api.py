"""`quantlytic api`: the REST API, on 127.0.0.1 unless the settings say otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantlytic_assets.commands.installation import CommandError
from quantlytic_assets.commands.migrating import bring_up_to_date

if TYPE_CHECKING:
    from rich.console import Console

    from quantlytic_assets.commands.installation import Installation


def run_api(installation: Installation, out: Console, port: int) -> None:
    """Serve the API until SIGINT or SIGTERM. Raises `CommandError` where the port can't be had."""
    import socket

    import uvicorn

    from quantlytic_assets.api.app import make_app
    from quantlytic_assets.push.frames import MOST_BYTES

    # A wrong universe is reported before anything listens.
    _ = installation.universe
    settings = installation.settings
    bring_up_to_date(installation, out)
    host = settings.api_host
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        raise CommandError(f"port {port} on {host} can't be had ({error}); set QUANTLYTIC_API_PORT") from None
    scheme = "https" if settings.api_cert else "http"
    asked = "credentials needed" if settings.api_authenticated else "reading needs no credential"
    out.print(f"api: {scheme}://{host}:{port}   /docs says what it can do   {asked}   end with Ctrl-C", soft_wrap=True)
    config = uvicorn.Config(
        make_app(installation.resources),
        http="httptools",
        loop="uvloop",
        ws="websockets-sansio",
        ws_max_size=MOST_BYTES,
        # Frames are made once for many readers; each would be compressed for each of them.
        ws_per_message_deflate=False,
        log_level="warning",
        access_log=False,
        server_header=False,
        ssl_certfile=settings.api_cert,
        ssl_keyfile=settings.api_cert_key,
    )
    uvicorn.Server(config).run(sockets=[listening])
