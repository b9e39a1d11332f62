"""`scripts/services`: its directory, its secrets, and what is left when it is killed. The suite runs under it."""

import json
import os
import shlex
import signal
import socket
import stat
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg2
import pytest

from quantlytic_assets.settings import CHECKOUT
from quantlytic_tests.deployment.stack import COMPOSE, compose, variables

SCRIPT = CHECKOUT / "scripts" / "services"
PATIENCE = 300

sys.path.insert(0, str(SCRIPT.parent))
try:
    from local_services.docker import compose_environment
    from local_services.place import SERVERS, Place
finally:
    sys.path.remove(str(SCRIPT.parent))


def environment(**changes):
    """Without the directory of the servers that the suite runs on."""
    kept = {name: value for name, value in os.environ.items() if name != "QUANTLYTIC_SERVICES_DIRECTORY"}
    return kept | changes


def services(*arguments, **changes):
    return subprocess.run(
        [SCRIPT, *map(str, arguments)], capture_output=True, text=True, timeout=PATIENCE, env=environment(**changes)
    )


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def directory():
    """Settings of servers on free ports, as a first `up` makes them; nothing runs at the end."""
    # pytest's own directory would not do: where root runs the tests, Postgres' user can't enter it.
    with TemporaryDirectory(prefix="quantlytic-services-test-", ignore_cleanup_errors=True) as made:
        place = Place(Path(made))
        place.prepare("native", free_ports=True)
        yield place.directory
        services("down", "--directory", place.directory)


def test_help_names_every_command():
    told = services("--help")
    assert told.returncode == 0
    for command in ("up", "down", "status", "env", "run", "start", "stop", "kill", "install"):
        assert f"\n    {command} " in told.stdout
        assert services(command, "--help").returncode == 0
    assert services("dance").returncode == 2 and services("kill", "everything").returncode == 2


def test_where_nothing_was_started_it_says_so(tmp_path):
    for command in ("status", "env"):
        told = services(command, "--directory", tmp_path / "none")
        assert told.returncode == 1 and "scripts/services up" in told.stderr
    assert services("down", "--directory", tmp_path / "none").returncode == 0
    assert services("run").returncode == 2
    assert "docker or native" in services("install", QUANTLYTIC_SERVICES="podman").stderr


def test_secrets_are_random_kept_and_told_to_their_owner_only(directory, tmp_path):
    settings = json.loads((directory / "settings.json").read_text())
    secrets = [settings[name] for name in ("s3_secret_key", "postgres_password", "postgres_admin_password")]
    assert all(len(secret) >= 24 for secret in secrets)
    other = Place(tmp_path / "other")
    other.prepare("native", free_ports=True)
    assert len({*secrets, *(other.settings[name] for name in ("s3_secret_key", "postgres_password"))}) == 5
    for name in ("settings.json", "environment"):
        assert stat.S_IMODE((directory / name).stat().st_mode) == 0o600
    status = services("status", "--directory", directory)
    assert status.returncode == 1 and status.stdout.count("stopped") == 3
    assert not any(secret in status.stdout + status.stderr for secret in secrets)
    written = dict(line.split("=", 1) for line in (directory / "environment").read_text().splitlines())
    exported = services("env", "--directory", directory).stdout
    lines = [shlex.split(line) for line in exported.splitlines()]
    assert all(word == "export" for word, _ in lines)
    assert dict(pair.split("=", 1) for _, pair in lines) == written
    assert written["QUANTLYTIC_PROFILE"] == "services"
    # Chosen once.
    Place(directory).prepare("native", free_ports=True)
    assert json.loads((directory / "settings.json").read_text()) == settings


def test_one_server_is_started_killed_and_started_again_with_its_data(directory):
    def connect():
        told = dict(line.split("=", 1) for line in (directory / "environment").read_text().splitlines())
        connection = psycopg2.connect(
            host=told["QUANTLYTIC_POSTGRES_HOST"],
            port=told["QUANTLYTIC_POSTGRES_PORT"],
            user=told["QUANTLYTIC_POSTGRES_USER"],
            password=told["QUANTLYTIC_POSTGRES_PASSWORD"],
            dbname="postgres",
        )
        connection.autocommit = True
        return connection

    def run(command):
        done = services(command, "postgres", "--directory", directory)
        assert done.returncode == 0, done.stderr
        return services("status", "--directory", directory).stdout.splitlines()[1]

    pid_file = directory / "pids" / "postgres.pid"
    # Another program's id, left from before the machine was started anew.
    pid_file.parent.mkdir()
    pid_file.write_text(f"{os.getpid()}\n")
    assert "answers" in run("start")
    with closing(connect()) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE kept")
        cursor.execute("SELECT rolsuper, rolcreatedb FROM pg_roles WHERE rolname = current_user")
        assert cursor.fetchall() == [(False, True)]
        cursor.execute("SELECT current_setting('fsync'), current_setting('listen_addresses')")
        assert cursor.fetchall() == [("on", "127.0.0.1")]
    first = int(pid_file.read_text())
    assert "answers" in run("start") and int(pid_file.read_text()) == first
    assert "stopped" in run("kill") and not pid_file.exists()
    assert "answers" in run("start") and int(pid_file.read_text()) != first
    with closing(connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_database WHERE datname = 'kept'")
        assert cursor.fetchall()
    assert "stopped" in run("stop")


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_run_leaves_nothing_behind_when_it_is_killed(end, tmp_path):
    told = tmp_path / "told"
    program = f'env | grep -E "^(QUANTLYTIC|AWS)_" > {told}.partial; mv {told}.partial {told}; exec sleep 1000'
    run = subprocess.Popen([SCRIPT, "run", "--free-ports", "--", "sh", "-c", program], env=environment())
    try:
        wait_until(lambda: told.exists() or run.poll() is not None)
        given = dict(line.split("=", 1) for line in told.read_text().splitlines())
        ports = [
            int(given["QUANTLYTIC_KAFKA"].rpartition(":")[2]),
            int(given["AWS_ENDPOINT_URL"].rpartition(":")[2]),
            int(given["QUANTLYTIC_POSTGRES_PORT"]),
        ]
        assert all(answers(port) for port in ports)
    finally:
        run.send_signal(end)
        run.wait(PATIENCE)
    wait_until(lambda: not Path(given["QUANTLYTIC_SERVICES_DIRECTORY"]).exists())
    assert not any(answers(port) for port in ports)


def test_a_run_that_ends_before_anything_is_laid_out_takes_its_own_directory_away_and_no_other(tmp_path):
    """The guard of such a run deleted the directory for temporary files, with all that was in it."""
    own, beside = tmp_path / "quantlytic-services-abc", tmp_path / "beside"
    for directory in (own, beside):
        directory.mkdir()
        (directory / "file").write_text("kept")
    ended = subprocess.run([SCRIPT, "guard", own], stdin=subprocess.DEVNULL, timeout=PATIENCE)
    assert ended.returncode == 0
    assert not own.exists()
    assert (beside / "file").read_text() == "kept"
    refused = subprocess.run([SCRIPT, "guard", beside], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert refused.returncode != 0 and "left as it is" in refused.stderr
    assert (beside / "file").exists()


def test_compose_is_given_all_that_it_must_have(directory):
    given = compose_environment(Place(directory))
    must = {name for name, kind, _ in variables(COMPOSE.read_text()) if kind == "?"}
    assert must <= given.keys() and all(given.values())
    used = {name for name, *_ in variables(COMPOSE.read_text())}
    assert given.keys() <= used
    told = compose(given)["services"]
    for name in SERVERS:
        assert f"127.0.0.1:{Place(directory).port(name)}:" in told[name]["ports"][0]
        assert told[name].get("depends_on") is None
    advertised = told["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert f"127.0.0.1:{Place(directory).port('kafka')}" in advertised
    assert told["postgres"]["environment"]["QUANTLYTIC_POSTGRES_PASSWORD"] == given["QUANTLYTIC_POSTGRES_PASSWORD"]
