"""What the system says of its processes, by way of `ps`, which every Unix has."""

from __future__ import annotations

import subprocess


def _ps(*arguments: str) -> str:
    return subprocess.run(["ps", *arguments], capture_output=True, text=True).stdout


def lives(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has waited for (a zombie) does not."""
    state = _ps("-o", "stat=", "-p", str(pid)).strip()
    return bool(state) and not state.startswith("Z")


def is_zombie(pid: int) -> bool:
    """Whether a process has ended and still stands in the table."""
    return _ps("-o", "stat=", "-p", str(pid)).strip().startswith("Z")


def arguments(pid: int) -> str:
    """A running process' command line, empty for one that does not run."""
    return _ps("-ww", "-o", "args=", "-p", str(pid)).strip() if lives(pid) else ""


def children(pid: int) -> list[int]:
    """The ids of a process' children."""
    pairs = [line.split() for line in _ps("-A", "-o", "pid=,ppid=").splitlines()]
    return [int(child) for child, parent in pairs if int(parent) == pid]
