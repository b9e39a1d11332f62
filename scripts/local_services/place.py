"""A directory of servers: its settings (mode, ports, secrets), its locks and the environment it gives to programs.

How a server is started is not known here.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
DEFAULT_DIRECTORY = CHECKOUT / ".services" / "data"
HOST = "127.0.0.1"
SERVERS = ("postgres", "minio", "kafka")
# Where a port is free now it should still be free after its server was stopped for a while: these are below what
# systems hand out to outgoing connections.
_FREE_PORTS = range(15_000, 30_000)
_USUAL_PORTS = {"kafka": 9092, "kafka_controller": 9093, "minio": 9000, "postgres": 5432}


class ServiceError(Exception):
    """A server can't be had; the message says why and what to do."""


class Place:
    """One directory of servers. `settings` is what `environment` and the servers are made from."""

    def __init__(self, directory: Path):
        self.directory = directory.expanduser().absolute()
        self.settings: dict = {}
        if self._settings_file.exists():
            self.settings = json.loads(self._settings_file.read_text())

    @property
    def _settings_file(self) -> Path:
        return self.directory / "settings.json"

    @property
    def environment_file(self) -> Path:
        """KEY=value lines, for the owner's eyes only."""
        return self.directory / "environment"

    def path(self, *parts: str) -> Path:
        """A path below the directory; its parent is made."""
        path = self.directory.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def pid_file(self, name: str) -> Path:
        """Where a server's process id is."""
        return self.path("pids", f"{name}.pid")

    def log_file(self, name: str) -> Path:
        """Where a server's output goes."""
        return self.path("logs", f"{name}.log")

    def prepare(self, mode: str, free_ports: bool) -> None:
        """Make the directory and choose ports and secrets; what was chosen once stays."""
        self.directory.mkdir(parents=True, exist_ok=True)
        # Servers of another user pass through; only what is theirs can be read by them.
        self.directory.chmod(0o711)
        if not self.settings:
            self.settings = {
                "mode": mode,
                "ports": _free_ports() if free_ports else dict(_USUAL_PORTS),
                "bucket": os.environ.get("QUANTLYTIC_S3_BUCKET") or "quantlytic",
                "s3_access_key": "quantlytic" + secrets.token_hex(5),
                "s3_secret_key": secrets.token_urlsafe(30),
                "postgres_password": secrets.token_urlsafe(24),
                "postgres_admin_password": secrets.token_urlsafe(24),
            }
            _write_private(self._settings_file, json.dumps(self.settings, indent=1))
        _write_private(
            self.environment_file, "".join(f"{name}={value}\n" for name, value in self.environment().items())
        )

    def port(self, name: str) -> int:
        """The port of a server (or of Kafka's controller)."""
        return self.settings["ports"][name]

    def environment(self) -> dict[str, str]:
        """What a program needs in its environment to use these servers."""
        return {
            "QUANTLYTIC_PROFILE": "services",
            "QUANTLYTIC_KAFKA": f"{HOST}:{self.port('kafka')}",
            "QUANTLYTIC_S3_BUCKET": self.settings["bucket"],
            "AWS_ENDPOINT_URL": f"http://{HOST}:{self.port('minio')}",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": self.settings["s3_access_key"],
            "AWS_SECRET_ACCESS_KEY": self.settings["s3_secret_key"],
            "QUANTLYTIC_POSTGRES_HOST": HOST,
            "QUANTLYTIC_POSTGRES_PORT": str(self.port("postgres")),
            "QUANTLYTIC_POSTGRES_USER": "quantlytic",
            "QUANTLYTIC_POSTGRES_PASSWORD": self.settings["postgres_password"],
            "QUANTLYTIC_SERVICES_DIRECTORY": str(self.directory),
        }

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Only one program at a time starts and stops servers of a directory."""
        with locked(self.path("lock"), f"another scripts/services works on {self.directory}"):
            yield


@contextmanager
def locked(path: Path, reason: str) -> Iterator[None]:
    """Hold a lock that the system takes back whatever ends this process; says `reason` when it has to wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{reason}; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def say(line: str) -> None:
    """A line for people, at once, and not on standard output, which is for programs."""
    os.write(2, f"services: {line}\n".encode())


def _write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as handle:
        handle.write(text)
    partial.replace(path)


def _free_ports() -> dict[str, int]:
    chosen: dict[str, int] = {}
    for candidate in random.SystemRandom().sample(_FREE_PORTS, 2_000):
        if len(chosen) == len(_USUAL_PORTS):
            break
        if not port_taken(candidate):
            chosen[list(_USUAL_PORTS)[len(chosen)]] = candidate
    return chosen


def port_taken(port: int) -> bool:
    """Whether a program has the port on loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False
