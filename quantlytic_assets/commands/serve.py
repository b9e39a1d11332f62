"""`quantlytic serve`: Dagster's webserver, daemon and code server, the pages and the API, as processes, ended together.

Webserver and daemon share one code server: each would start one of its own otherwise, which takes as long to start and
as much memory as all the rest. While they run the universe file is watched: when it has changed, the UI is told to load
its code location again.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from quantlytic_assets.commands.installation import CommandError
from quantlytic_assets.commands.migrating import bring_up_to_date
from quantlytic_assets.commands.server_program import PATIENCE_SECONDS, answers
from quantlytic_assets.settings import CHECKOUT, CODE_LOCATION
from quantlytic_assets.universe.watch import WatchedUniverse

if TYPE_CHECKING:
    from rich.console import Console

    from quantlytic_assets.commands.installation import Installation

_RELOAD = """
mutation($name: String!) {
  reloadRepositoryLocation(repositoryLocationName: $name) {
    __typename
    ... on WorkspaceLocationEntry { locationOrLoadError { __typename ... on PythonError { message } } }
    ... on PythonError { message }
  }
}
"""
# How often the universe file is looked at, in seconds.
_WATCH = 1.0


def run_servers(installation: Installation, out: Console, with_api: bool = True) -> None:
    """Start all, say where they are, wait until interrupted or one of them ends.

    Where the API's port is taken the rest is served without it: other programs like 8000 too, and so does an API of
    this installation that runs already.
    """
    settings = installation.settings
    port = settings.port
    for wanted, variable in ((port, "QUANTLYTIC_PORT"), (settings.pages_port, "QUANTLYTIC_PAGES_PORT")):
        if answers(wanted):
            raise CommandError(f"port {wanted} on 127.0.0.1 is taken; set {variable} to another one")
    # A wrong universe is reported here, not as a code location that does not load.
    universe = WatchedUniverse(settings.universe)
    if with_api and answers(settings.api_port):
        with_api = False
        out.print(
            f"port {settings.api_port} on 127.0.0.1 is taken, so the API is left out; "
            "set QUANTLYTIC_API_PORT to another one",
            soft_wrap=True,
        )
    installation.prepare_dagster_home()
    logs = installation.settings.directory("logs")
    code_port = _free_port()
    workspace = str(_write_workspace(installation.settings.directory("dagster"), code_port))
    running: dict[str, subprocess.Popen] = {}
    previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        # Programs that make Dagster's databases at the same time fail, the code server among them.
        installation.instance.dispose()
        # The first one, for it takes longest; it touches no data.
        code = ["-m", "quantlytic_assets.definitions", "-a", "defs", "--location-name", CODE_LOCATION]
        running["code server"] = _start(
            logs, "code server", "dagster", "code-server", "start", "-h", "127.0.0.1", "-p", str(code_port), *code
        )
        bring_up_to_date(installation, out)
        programs = {
            "webserver": ["dagster-webserver", "-h", "127.0.0.1", "-p", str(port), "-w", workspace],
            "daemon": ["dagster-daemon", "run", "-w", workspace],
            "pages": ["quantlytic", "pages"],
        }
        if with_api:
            programs["api"] = ["quantlytic", "api"]
        for name, program in programs.items():
            # They begin when the code server answers.
            running[name] = _start(logs, name, "quantlytic_assets.commands.server_program", str(code_port), *program)
        _wait_for(port, running, logs)
        out.print(
            f"UI: http://127.0.0.1:{port}   charts and reports: {settings.pages}   "
            + (f"API and dashboard: {settings.dashboard}   " if with_api else "")
            + f"logs: {logs}   end with Ctrl-C",
            soft_wrap=True,
        )
        while all(process.poll() is None for process in running.values()):
            time.sleep(_WATCH)
            if universe.changed():
                out.print(on_change(universe, port), highlight=False, markup=False, soft_wrap=True)
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
    server = {"host": "127.0.0.1", "port": port, "location_name": CODE_LOCATION}
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


def on_change(universe: WatchedUniverse, port: int) -> str:
    """Have the UI load its code location again where the universe is right; what came of it, for people."""
    if universe.mistakes:
        return "\n".join(
            [f"{universe.path} has changed and has mistakes; the UI keeps what it had before:", *universe.mistakes]
        )
    try:
        answer = reload_location(port)
    except (OSError, ValueError) as error:
        return f"{universe.path} has changed, but the UI did not load it again ({error}); in the UI: Deployment, Reload"
    if answer is not None:
        return f"{universe.path} has changed, but the UI can't load it: {answer}"
    return f"{universe.path} has changed; the UI has loaded it again"


def reload_location(port: int) -> str | None:
    """Have the webserver on a port load its code location again; None when all is well, else what it said.

    Raises `OSError` or `ValueError` where it does not answer, or not as Dagster does.
    """
    body = json.dumps({"query": _RELOAD, "variables": {"name": CODE_LOCATION}}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql", body, {"content-type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=180) as response:
        answer = json.loads(response.read())
    if "data" not in answer:
        raise ValueError(str(answer)[:300])
    entry = answer["data"]["reloadRepositoryLocation"]
    loaded = entry.get("locationOrLoadError") or {}
    return entry.get("message") or loaded.get("message")
