"""Processes that are started again when they end, as a supervisor does, and what the system says of them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_LOOK_SECONDS = 0.2
# As container engines and systemd have it by default, more or less: at once, but not in a tight loop.
_RESTART_SECONDS = 1.0
_STOP_SECONDS = 30


@dataclass(frozen=True)
class Program:
    """How a process is started."""

    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path

    def start(self) -> subprocess.Popen:
        """Start it in a session, and so a process group, of its own."""
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self.command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip


class Supervisor:
    """Keeps programs running until they are stopped. Used as a context: at its end nothing of them is left."""

    def __init__(self) -> None:
        self._programs: dict[str, Program] = {}
        self._running: dict[str, subprocess.Popen] = {}
        self._ended_at: dict[str, float] = {}
        self._groups: list[int] = []
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._watch = threading.Thread(target=self._keep_running, daemon=True)
        self.restarts: Counter[str] = Counter()

    def start(self, name: str, program: Program) -> None:
        """Start a program, and again whenever it ends."""
        with self._lock:
            self._programs[name] = program
            self._begin(name)

    def _begin(self, name: str) -> None:
        self._running[name] = self._programs[name].start()
        self._groups.append(self._running[name].pid)

    def _keep_running(self) -> None:
        while not self._closing.wait(_LOOK_SECONDS):
            with self._lock:
                for name, process in self._running.items():
                    if process.poll() is None:
                        continue
                    if time.monotonic() - self._ended_at.setdefault(name, time.monotonic()) >= _RESTART_SECONDS:
                        del self._ended_at[name]
                        self.restarts[name] += 1
                        self._begin(name)

    def pid(self, name: str) -> int | None:
        """The id of a program's process; None while there is none."""
        with self._lock:
            process = self._running[name]
            return process.pid if process.poll() is None else None

    def stop(self, name: str, patience: float = _STOP_SECONDS) -> int:
        """End a program for good, in good order (SIGTERM), and return its exit code. What is left of it is killed."""
        with self._lock:
            process = self._running.pop(name)
            self._programs.pop(name)
        if process.poll() is None:
            process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)
        _kill_group(process.pid)
        return process.wait()

    def __enter__(self) -> Supervisor:
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._watch.join()
        for process in self._running.values():
            process.terminate()
        deadline = time.monotonic() + _STOP_SECONDS
        for process in self._running.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
        # Also what was left behind by those that were killed.
        for group in self._groups:
            _kill_group(group)
        for process in self._running.values():
            process.wait()


def _kill_group(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def lives(pid: int) -> bool:
    """Whether there is such a process, and not only its remains."""
    return any(one == pid for one, _, _ in _table())


def kill(pid: int) -> bool:
    """SIGKILL; whether there was such a process, alive."""
    if not lives(pid):
        return False
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def children(pid: int, words: str = "") -> list[int]:
    """Ids of a process's children whose command line has these words."""
    return [child for child, parent, line in _table() if parent == pid and words in line]


def descendants(pid: int) -> list[int]:
    """Ids of a process's children, their children, and so on."""
    table = _table()
    found = [pid]
    for one in found:
        found += [child for child, parent, _ in table if parent == one]
    return found[1:]


def _table() -> list[tuple[int, int, str]]:
    """(id, parent's id, command line) of all processes that live."""
    command = ["ps", "-A", "-ww", "-o", "pid=,ppid=,stat=,args="]
    listed = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = (line.split(None, 3) for line in listed.stdout.splitlines())
    # One that has ended and that nobody has waited for, a zombie, is listed as well.
    return [(int(row[0]), int(row[1]), row[-1]) for row in rows if not row[2].startswith("Z")]


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
