"""`quantlytic serve`: the Dagster webserver and daemon as child processes, ended together."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from quantlytic_assets.commands.installation import CommandError
from quantlytic_assets.commands.migrating import bring_up_to_date
from quantlytic_assets.settings import CHECKOUT

if TYPE_CHECKING:
    from rich.console import Console

    from quantlytic_assets.commands.installation import Installation


def run_servers(installation: Installation, out: Console) -> None:
    """Start both, say where the UI is, wait until interrupted or one of them ends."""
    port = installation.settings.port
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise CommandError(f"port {port} on 127.0.0.1 is taken; set QUANTLYTIC_PORT to another one")
    # A wrong universe is reported here, not as a code location that does not load.
    _ = installation.universe
    bring_up_to_date(installation, out)
    # Opened here first: the two servers would make Dagster's databases at the same time, and one of them would fail.
    installation.instance.dispose()
    programs = Path(sys.executable).parent
    workspace = str(CHECKOUT / "workspace.yaml")
    logs = installation.settings.directory("logs")
    commands = {
        "webserver": [programs / "dagster-webserver", "-h", "127.0.0.1", "-p", str(port), "-w", workspace],
        "daemon": [programs / "dagster-daemon", "run", "-w", workspace],
    }
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', '')}"}
    running: dict[str, subprocess.Popen] = {}
    previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        for name, command in commands.items():
            with (logs / f"{name}.log").open("ab") as log:
                running[name] = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=CHECKOUT)
        _wait_for(port, running, logs)
        out.print(f"UI: http://127.0.0.1:{port}   logs: {logs}   end with Ctrl-C", soft_wrap=True)
        while all(process.poll() is None for process in running.values()):
            time.sleep(0.5)
        ended = next(name for name, process in running.items() if process.poll() is not None)
        raise CommandError(f"the {ended} ended by itself; its log is {logs / f'{ended}.log'}")
    except KeyboardInterrupt:
        out.print("stopping")
    finally:
        signal.signal(signal.SIGTERM, previous)
        for process in running.values():
            process.terminate()
        for process in running.values():
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_for(port: int, running: dict[str, subprocess.Popen], logs: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for name, process in running.items():
            if process.poll() is not None:
                raise CommandError(f"the {name} did not start; its log is {logs / f'{name}.log'}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.3)
    log = logs / "webserver.log"
    raise CommandError(f"the webserver did not answer on port {port} in two minutes; its log is {log}")
