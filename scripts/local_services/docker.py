"""The same servers through Docker Compose, where a Docker engine answers; docker-compose.yml says how each is run."""

from __future__ import annotations

import hashlib
import os
import subprocess

from local_services.place import CHECKOUT, SERVERS, Place, ServiceError

_START_SECONDS = 300


def available() -> bool:
    """Whether an engine answers and Compose is there."""
    return _quiet(["docker", "info"]) and _quiet(["docker", "compose", "version"])


def _quiet(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _project(place: Place) -> str:
    """A project name of the place's own, so that several places have servers and volumes of their own."""
    return "quantlytic-" + hashlib.sha256(str(place.directory).encode()).hexdigest()[:12]


def compose_environment(place: Place) -> dict[str, str]:
    """The variables of docker-compose.yml that the three servers need."""
    settings = place.settings
    return {
        "KAFKA_PORT": str(place.port("kafka")),
        "MINIO_PORT": str(place.port("minio")),
        # Any free one: nobody is told of it.
        "MINIO_CONSOLE_PORT": "0",
        "POSTGRES_PORT": str(place.port("postgres")),
        "QUANTLYTIC_S3_BUCKET": settings["bucket"],
        "AWS_ACCESS_KEY_ID": settings["s3_access_key"],
        "AWS_SECRET_ACCESS_KEY": settings["s3_secret_key"],
        "QUANTLYTIC_POSTGRES_PASSWORD": settings["postgres_password"],
        "POSTGRES_ADMIN_PASSWORD": settings["postgres_admin_password"],
        "GRAFANA_ADMIN_PASSWORD": settings["postgres_admin_password"],
    }


def _compose(place: Place, *arguments: str, what: str) -> str:
    """One `docker compose` call; raises `ServiceError` with the end of what it said."""
    # An .env of the user's is for the whole stack; these servers have settings of their own.
    command = ["docker", "compose", "--project-name", _project(place), "--env-file", os.devnull,
               "--file", str(CHECKOUT / "docker-compose.yml"), *arguments]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **compose_environment(place)}, cwd=CHECKOUT
    )
    if done.returncode:
        tail = "\n  ".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise ServiceError(f"{what} failed (docker compose ended with {done.returncode}):\n  {tail}")
    return done.stdout


def start_all(place: Place) -> None:
    """Start the three servers and wait until Compose finds them healthy; the code makes the bucket on first use."""
    _compose(
        place, "up", "--detach", "--wait", "--wait-timeout", str(_START_SECONDS), *SERVERS, what="starting the servers"
    )


def stop_all(place: Place, with_data: bool) -> None:
    """End them; `with_data` removes their volumes too."""
    _compose(place, "down", *(["--volumes"] if with_data else []), what="stopping the servers")


def act(place: Place, action: str, name: str) -> None:
    """`start` (and wait), `stop` or `kill` one server."""
    arguments = ["up", "--detach", "--wait", "--no-deps", name] if action == "start" else [action, name]
    _compose(place, *arguments, what=f"{action} {name}")


def running(place: Place) -> set[str]:
    """Names of the servers that run."""
    return set(_compose(place, "ps", "--services", "--status", "running", what="asking what runs").split())
