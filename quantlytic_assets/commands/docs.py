"""`quantlytic docs`: dbt's own documentation of the tables, built from the project and the lake."""

from __future__ import annotations

import http.server
import os
import subprocess
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from quantlytic_assets import settings
from quantlytic_assets.commands.installation import CommandError
from quantlytic_assets.settings import DBT_PROJECT

if TYPE_CHECKING:
    from rich.console import Console

    from quantlytic_assets.commands.installation import Installation

_PORT = 8580


def build_docs(installation: Installation) -> Path:
    """Build the docs into one directory and return it; raises `CommandError` with dbt's own words."""
    lake = installation.resources.lake
    lake.connect()
    target = installation.settings.directory("dbt") / "docs"
    command = [
        str(settings.PROGRAMS / "dbt"),
        "docs",
        "generate",
        "--project-dir",
        str(DBT_PROJECT),
        "--profiles-dir",
        str(DBT_PROJECT),
        "--target-path",
        str(target),
    ]
    done = subprocess.run(command, env={**os.environ, **lake.dbt_environment()}, capture_output=True, text=True)
    if done.returncode != 0:
        raise CommandError(f"dbt docs generate failed:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
    return target


def run_docs(installation: Installation, out: Console, serve: bool) -> None:
    """Build, then serve on 127.0.0.1 until interrupted."""
    target = build_docs(installation)
    out.print(f"docs: {target / 'index.html'}", soft_wrap=True)
    if not serve:
        return
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(target))
    with http.server.ThreadingHTTPServer(("127.0.0.1", _PORT), handler) as server:
        out.print(f"dbt docs: http://127.0.0.1:{_PORT}   end with Ctrl-C", soft_wrap=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            out.print("stopping")
