"""`quantlytic`, `dbt` and `python` for tests: forked from a process that has their imports behind it.

The tests start these programs hundreds of times, and most of what a short one costs is what it imports. A test that is
about the start of a process uses the installed program.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import quantlytic_tests
from quantlytic_tests.forking import client
from quantlytic_tests.forking.server import COMPILED, PROGRAMS


@contextmanager
def forked_programs(at_once: bool = False) -> Iterator[Path]:
    """A directory of programs to start like the installed ones.

    The first that is started starts the fork server, or it is started `at_once`.
    """
    # Not below pytest's directory: the name of a socket has to be short.
    with tempfile.TemporaryDirectory(prefix="quantlytic-programs-") as name, socket.socket(socket.AF_UNIX) as listener:
        directory = Path(name)
        listener.bind(str(directory / "socket"))
        listener.listen(64)
        _write_programs(directory)
        # Readable when it is time to end.
        end, ending = os.pipe()
        waiting = threading.Thread(target=_serve_when_wanted, args=(listener, directory, end, at_once))
        waiting.start()
        try:
            yield directory
        finally:
            os.close(ending)
            waiting.join()
            os.close(end)


def _write_programs(directory: Path) -> None:
    source = Path(client.__file__).read_text()
    for name in PROGRAMS:
        path = directory / name
        path.write_text(f"#!{sys.executable} -IS\n{source}")
        path.chmod(0o755)
    # Where a program looks beside Python's for another one it finds it. Python itself is found by no other name.
    for installed in Path(sys.executable).parent.iterdir():
        if installed.name not in PROGRAMS and not installed.name.startswith("python"):
            (directory / installed.name).symlink_to(installed)


def _serve_when_wanted(listener: socket.socket, directory: Path, end: int, at_once: bool) -> None:
    """Start the server when the first client knocks; it ends when `end` is at its end, which is its standard input."""
    if not at_once and listener not in select.select([listener, end], [], [])[0]:
        return
    # Compiling the libraries anew in each fork would take most of the time.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    # A killed dbt leaves its semaphores to this server's tracker, which removes them and would warn of it in the end.
    environment["PYTHONWARNINGS"] = "ignore::UserWarning:multiprocessing.resource_tracker"
    try:
        subprocess.run(
            [sys.executable, "-m", "quantlytic_tests.forking.server", str(directory), str(listener.fileno())],
            cwd=Path(quantlytic_tests.__file__).parents[1],
            env=environment,
            stdin=end,
            pass_fds=[listener.fileno()],
            check=True,
        )
    finally:
        # Nobody need wait any longer.
        (directory / COMPILED).touch()
