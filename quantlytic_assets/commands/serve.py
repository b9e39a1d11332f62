"""`quantlytic serve`: the Dagster webserver, daemon and code server as child processes, ended together.

Webserver and daemon share one code server: each would start one of its own otherwise, which takes as long to start and
as much memory as all the rest.
"""

from __future__ import annotations

import json
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
from quantlytic_assets.commands.server_program import PATIENCE_SECONDS, answers
from quantlytic_assets.settings import CHECKOUT

if TYPE_CHECKING:
    from rich.console import Console

    from quantlytic_assets.commands.installation import Installation


def run_servers(installation: Installation, out: Console) -> None:
    """Start them, say where the UI is, wait until interrupted or one of them ends."""
    port = installation.settings.port
    if answers(port):
        raise CommandError(f"port {port} on 127.0.0.1 is taken; set QUANTLYTIC_PORT to another one")
    # A wrong universe is reported here, not as a code location that does not load.
    _ = installation.universe
    installation.prepare_dagster_home()
    logs = installation.settings.directory("logs")
    code_port = _free_port()
    workspace = str(_write_workspace(installation.settings.directory("dagster"), code_port))
    running: dict[str, subprocess.Popen] = {}
    previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        # First, for it takes longest and touches no data.
        code = ["-m", "quantlytic_assets.definitions", "-a", "defs", "--location-name", "quantlytic"]
        running["code server"] = _start(
            logs, "code server", "dagster", "code-server", "start", "-h", "127.0.0.1", "-p", str(code_port), *code
        )
        bring_up_to_date(installation, out)
        # The two servers would make Dagster's databases at the same time, and one of them would fail.
        installation.instance.dispose()
        for name, program in (
            ("webserver", ["dagster-webserver", "-h", "127.0.0.1", "-p", str(port)]),
            ("daemon", ["dagster-daemon", "run"]),
        ):
            # They begin when the code server answers.
            running[name] = _start(
                logs, name, "quantlytic_assets.commands.server_program", str(code_port), *program, "-w", workspace
            )
        _wait_for(port, running, logs)
        out.print(f"UI: http://127.0.0.1:{port}   logs: {logs}   end with Ctrl-C", soft_wrap=True)
        while all(process.poll() is None for process in running.values()):
            time.sleep(0.5)
        ended = next(name for name, process in running.items() if process.poll() is not None)
        raise CommandError(f"the {ended} ended by itself; its log is {_log(logs, ended)}")
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


def _start(logs: Path, name: str, module: str, *arguments: str) -> subprocess.Popen:
    """Start a Python program whose output goes to its log."""
    programs = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', '')}"}
    with _log(logs, name).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments], stdout=log, stderr=log, env=environment, cwd=CHECKOUT
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _write_workspace(home: Path, port: int) -> Path:
    """Where webserver and daemon find the code. The location's name is what Dagster files sensors' states under."""
    path = home / "workspace.yaml"
    server = {"host": "127.0.0.1", "port": port, "location_name": "quantlytic"}
    path.write_text(json.dumps({"load_from": [{"grpc_server": server}]}))
    return path


def _log(logs: Path, name: str) -> Path:
    return logs / f"{name.replace(' ', '_')}.log"


def _wait_for(port: int, running: dict[str, subprocess.Popen], logs: Path) -> None:
    deadline = time.monotonic() + 2 * PATIENCE_SECONDS
    while not answers(port):
        for name, process in running.items():
            if process.poll() is not None:
                raise CommandError(f"the {name} did not start; its log is {_log(logs, name)}")
        if time.monotonic() > deadline:
            raise CommandError(f"the webserver did not answer on port {port}; its log is {_log(logs, 'webserver')}")
        time.sleep(0.1)
