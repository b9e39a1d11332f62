"""Starting, finding and ending the servers' processes, whatever became of the program that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import time

from local_services import process_table
from local_services.place import HOST, Place, ServiceError, port_taken, say
from local_services.servers import Server, servers

_START_SECONDS = 120
_STOP_SECONDS = 60


def pid_of(server: Server) -> int | None:
    """The id of a server's living process; a pid file left from before, or of another program now, counts for none."""
    try:
        pid = int(server.place.pid_file(server.name).read_text())
    except (OSError, ValueError):
        return None
    return pid if _is(pid, server) else None


def _is(pid: int, server: Server) -> bool:
    """Whether a process is this server: its arguments name the server's place."""
    return str(server.data().parent) in process_table.arguments(pid)


def start(server: Server) -> None:
    """Start a server that does not run; its process writes its own id down before it becomes the server."""
    if pid_of(server) is not None:
        return
    server.prepare()
    _wait_for_ports(server)
    user = server.user()
    pid_file = server.place.pid_file(server.name)

    def become() -> None:
        # In the child: whatever ends this program from here on, the next one finds the server.
        pid_file.write_text(f"{os.getpid()}\n")
        if user is not None:
            os.setgroups([])
            os.setgid(user.pw_gid)
            os.setuid(user.pw_uid)

    with server.place.log_file(server.name).open("ab") as log:
        subprocess.Popen(
            server.command(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=server.environment(),
            cwd="/",
            start_new_session=True,
            preexec_fn=become,
        )


def _wait_for_ports(server: Server) -> None:
    """A server that was just killed may still be letting go of its ports."""
    deadline = time.monotonic() + 10
    while taken := [port for port in server.ports if port_taken(port)]:
        if time.monotonic() > deadline:
            raise ServiceError(
                f"{server.name}: port {taken[0]} on {HOST} is taken by another program; end that one, or give "
                "--free-ports and a --directory of its own"
            )
        time.sleep(0.1)


def wait_until_it_answers(server: Server) -> None:
    """Return once a started server answers; raises `ServiceError` with the end of its log where it does not."""
    deadline = time.monotonic() + _START_SECONDS
    while not server.answers():
        if pid_of(server) is None:
            raise ServiceError(f"{server.name} ended while it started; its log {_log_tail(server)}")
        if time.monotonic() > deadline:
            raise ServiceError(f"{server.name} did not answer within {_START_SECONDS} s; its log {_log_tail(server)}")
        time.sleep(0.1)


def _log_tail(server: Server) -> str:
    path = server.place.log_file(server.name)
    try:
        lines = path.read_text(errors="replace").strip().splitlines()[-15:]
    except OSError:
        lines = []
    return f"{path} ends with:\n  " + "\n  ".join(lines)


def stop(server: Server) -> bool:
    """End a server in good order and wait until it is gone; whether it ran. One that does not end is killed."""
    pid = pid_of(server)
    if pid is None:
        server.place.pid_file(server.name).unlink(missing_ok=True)
        return False
    _send(pid, getattr(signal, server.stop_signal))
    if not _gone(pid, server, _STOP_SECONDS):
        say(f"{server.name} did not end in {_STOP_SECONDS} s; killing it")
        return kill(server)
    server.place.pid_file(server.name).unlink(missing_ok=True)
    return True


def kill(server: Server) -> bool:
    """End a server and its children at once, without a chance to tidy up; whether it ran."""
    pid = pid_of(server)
    if pid is None:
        return False
    all_of_it = [pid, *process_table.children(pid)]
    for one in all_of_it:
        _send(one, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while any(map(process_table.lives, all_of_it)) and time.monotonic() < deadline:
        time.sleep(0.05)
    server.place.pid_file(server.name).unlink(missing_ok=True)
    return True


def _send(pid: int, what: int) -> None:
    try:
        os.kill(pid, what)
    except ProcessLookupError:
        return


def _gone(pid: int, server: Server, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while _is(pid, server):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def start_all(place: Place) -> None:
    """Start all servers of a place and wait until each answers; those that run already are left alone."""
    chosen = servers(place)
    for server in chosen.values():
        start(server)
    for server in chosen.values():
        wait_until_it_answers(server)


def stop_all(place: Place) -> list[str]:
    """End all servers of a place; returns the names of those that ran."""
    return [name for name, server in reversed(servers(place).items()) if stop(server)]
