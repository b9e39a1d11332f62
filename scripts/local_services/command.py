"""The command line of `scripts/services`."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

from local_services import docker, processes
from local_services.place import DEFAULT_DIRECTORY, HOST, SERVERS, Place, ServiceError, say
from local_services.servers import servers
from local_services.software import BROWSER, Software

_DESCRIPTION = """\
The real servers of Quantlytic's `services` profile on 127.0.0.1: Kafka, MinIO and Postgres.

Where a Docker engine answers they are started by Docker Compose, elsewhere from the package registries of Maven, Go and
the system (or PyPI), installed into .services/software. QUANTLYTIC_SERVICES=docker or =native decides it by hand.
Ports, keys and passwords are made once for each directory and kept in it, readable by you alone.
"""
_EXAMPLES = """\
examples:
  scripts/services up && eval "$(scripts/services env)"     then: quantlytic serve
  scripts/services run --free-ports -- make something        servers of its own, gone with their data when it ends
  scripts/services kill kafka && scripts/services start kafka
"""
# What `run` tells its guard when its program has ended.
_ENDED = "ended"
# How the directories of `run` are called: no others are ever deleted.
_TEMPORARY = "quantlytic-services-"


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code is 0 done, 1 failed, 2 wrong usage, or that of `run`'s own command."""
    parser = _parser()
    given = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(given)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return options.action(options)
    except ServiceError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/services",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, action: object, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(action=action)
        return command

    def directory(command: argparse.ArgumentParser) -> None:
        command.add_argument(
            "--directory",
            type=Path,
            default=Path(os.environ.get("QUANTLYTIC_SERVICES_DIRECTORY") or DEFAULT_DIRECTORY),
            help="where the servers' data, logs, ids and settings are (default: %(default)s)",
        )

    def free_ports(command: argparse.ArgumentParser) -> None:
        command.add_argument(
            "--free-ports", action="store_true", help="choose free ports instead of 9092, 9000 and 5432"
        )

    up = add("up", _up, "Start the servers, and return when each answers. Data stays from one time to the next.")
    directory(up)
    free_ports(up)
    down = add("down", _down, "End the servers; their data stays.")
    directory(down)
    directory(add("status", _status, "Say what runs and answers; exit 0 when all do."))
    directory(add("env", _env, "Print `export` lines, with the passwords, for eval."))
    run = add("run", _run, "Run a command with servers of its own, which end, with their data, when it does.")
    free_ports(run)
    run.add_argument("program", nargs=argparse.REMAINDER, metavar="-- COMMAND …")
    for name, text in (
        ("start", "Start one server again, and return when it answers."),
        ("stop", "End one server in good order; its data stays."),
        ("kill", "End one server at once (SIGKILL); its data stays as it was left."),
    ):
        one = add(name, _one, text)
        one.add_argument("server", choices=sorted(SERVERS))
        directory(one)
    install = add("install", _install, "Only install the servers' programs (nothing to do where Docker is used).")
    install.add_argument("--browser", action="store_true", help="also what the tests of pages need: Chromium, axe-core")
    # Started by `run` for the case that it is killed itself.
    guard = commands.add_parser("guard")
    guard.set_defaults(action=_guard)
    guard.add_argument("directory", type=Path)
    return parser


def _mode() -> str:
    """Docker or native."""
    wanted = os.environ.get("QUANTLYTIC_SERVICES", "")
    if wanted not in ("", "docker", "native"):
        raise ServiceError(f"QUANTLYTIC_SERVICES={wanted}: it is docker or native")
    if wanted == "docker" and not docker.available():
        raise ServiceError("QUANTLYTIC_SERVICES=docker, but `docker info` or `docker compose version` fails here")
    return wanted or ("docker" if docker.available() else "native")


def _known(directory: Path) -> Place:
    place = Place(directory)
    if not place.settings:
        raise ServiceError(f"no servers were ever started in {place.directory}; run: scripts/services up")
    return place


def _install(options: argparse.Namespace) -> int:
    wanted = (SERVERS if _mode() == "native" else ()) + (BROWSER if options.browser else ())
    Software().install(wanted)
    return 0


def _up(options: argparse.Namespace) -> int:
    place = Place(options.directory)
    _bring_up(place, options.free_ports)
    say(f"kafka, minio and postgres answer; their environment is in {place.environment_file}")
    say('for a shell: eval "$(scripts/services env)"')
    return 0


def _bring_up(place: Place, free_ports: bool) -> None:
    mode = place.settings.get("mode") or _mode()
    if mode == "native":
        Software().install()
    with place.locked():
        # Another one may have made the settings while this one waited.
        place = Place(place.directory)
        place.prepare(mode, free_ports)
        if mode == "docker":
            docker.start_all(place)
        else:
            processes.start_all(place)


def _take_down(place: Place, with_data: bool = False) -> list[str]:
    if not place.settings:
        return []
    with place.locked():
        if place.settings["mode"] == "docker":
            ran = sorted(docker.running(place))
            docker.stop_all(place, with_data)
            return ran
        return processes.stop_all(place)


def _down(options: argparse.Namespace) -> int:
    ran = _take_down(Place(options.directory))
    say(f"ended {', '.join(ran)}" if ran else "nothing ran")
    return 0


def _status(options: argparse.Namespace) -> int:
    place = _known(options.directory)
    all_answer = True
    in_docker = docker.running(place) if place.settings["mode"] == "docker" else set()
    print(f"directory  {place.directory} ({place.settings['mode']})")
    for name, server in servers(place).items():
        pid = None if place.settings["mode"] == "docker" else processes.pid_of(server)
        runs = pid is not None or name in in_docker
        answers = runs and server.answers()
        all_answer &= answers
        state = "answers" if answers else ("runs, does not answer" if runs else "stopped")
        where = f"{HOST}:{server.port}"
        print(f"{name:<9}  {state:<21}  {where:<15}" + (f"  pid {pid}" if pid else ""))
    return 0 if all_answer else 1


def _env(options: argparse.Namespace) -> int:
    for name, value in _known(options.directory).environment().items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


def _one(options: argparse.Namespace) -> int:
    place, action, name = _known(options.directory), options.command, options.server
    if action == "start" and place.settings["mode"] == "native":
        Software().install([name])
    with place.locked():
        if place.settings["mode"] == "docker":
            docker.act(place, action, name)
            return 0
        server = servers(place)[name]
        if action == "start":
            processes.start(server)
            processes.wait_until_it_answers(server)
        else:
            ran = processes.stop(server) if action == "stop" else processes.kill(server)
            if not ran:
                say(f"{name} did not run")
    return 0


def _run(options: argparse.Namespace) -> int:
    program = options.program[1:] if options.program[:1] == ["--"] else options.program
    if not program:
        say("run needs a command: scripts/services run [--free-ports] -- COMMAND …")
        return 2
    place = Place(Path(tempfile.mkdtemp(prefix=_TEMPORARY)))
    guard = _start_guard(place)
    try:
        _bring_up(place, options.free_ports)
        place = Place(place.directory)
        return _run_program(program, {**os.environ, **place.environment()}, guard)
    finally:
        # A second signal must not leave servers behind.
        for one in (signal.SIGINT, signal.SIGTERM):
            signal.signal(one, signal.SIG_IGN)
        _pipe(guard).close()
        guard.wait()


def _run_program(program: list[str], environment: dict[str, str], guard: subprocess.Popen) -> int:
    """Run a program to its end and return its exit code; what ends this one is passed on to it."""
    try:
        child = subprocess.Popen(program, env=environment)
    except OSError as error:
        raise ServiceError(f"{program[0]} can't be run: {error}") from None
    try:
        _tell(guard, str(child.pid))
        code = child.wait()
    except BaseException as error:
        # The terminal sends an interruption to both.
        if not isinstance(error, KeyboardInterrupt):
            child.terminate()
        try:
            child.wait(timeout=30)
        except subprocess.TimeoutExpired:
            child.kill()
        raise
    finally:
        _tell(guard, _ENDED)
    return code if code >= 0 else 128 - code


def _tell(guard: subprocess.Popen, line: str) -> None:
    pipe = _pipe(guard)
    pipe.write(f"{line}\n".encode())
    pipe.flush()


def _pipe(guard: subprocess.Popen) -> IO[bytes]:
    assert guard.stdin is not None, "the guard is started with a pipe"
    return guard.stdin


def _start_guard(place: Place) -> subprocess.Popen:
    """A process that takes the servers down when this one ends, however it ends: then its input is closed.

    It is told the id of `run`'s program, and that this has ended.
    """
    script = Path(sys.argv[0]).resolve()
    return subprocess.Popen(
        [sys.executable, str(script), "guard", str(place.directory)], stdin=subprocess.PIPE, start_new_session=True
    )


def _guard(options: argparse.Namespace) -> int:
    if not options.directory.name.startswith(_TEMPORARY):
        raise ServiceError(f"{options.directory} was not made by `scripts/services run`: it is left as it is")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    told = sys.stdin.read().split()
    if told and told[-1] != _ENDED:
        try:
            os.kill(int(told[-1]), signal.SIGTERM)
        except ProcessLookupError:
            say("the program has ended as well")
    place = Place(options.directory)
    # Without settings nothing was laid out yet, and there is the directory alone.
    outside = [servers(place)["postgres"].data().parent] if place.settings else []
    try:
        _take_down(place, with_data=True)
    finally:
        for directory in (place.directory, *outside):
            shutil.rmtree(directory, ignore_errors=True)
    return 0
