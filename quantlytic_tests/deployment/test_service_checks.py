"""`quantlytic doctor` names the service that is wrong, says what to do, tells no secret and is soon done."""

import socket
import threading
from contextlib import contextmanager

import pytest
from pydantic import SecretStr

from quantlytic_assets.commands.service_checks import (
    kafka_problem,
    object_store_problem,
    postgres_problem,
    service_problems,
)
from quantlytic_tests.storage.places import opened


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """A fresh installation on the real servers."""
    with opened("services", tmp_path_factory.mktemp("doctor")) as place:
        yield place.settings


def changed(settings, **changes):
    secrets = {name: SecretStr(value) for name, value in changes.items() if "secret" in name or "password" in name}
    return settings.model_copy(update=changes | secrets)


def free_port():
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def silent_server():
    """Takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        kept = []

        def take():
            while True:
                try:
                    kept.append(server.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)
        for connection in kept:
            connection.close()


def on(settings, port):
    """All three services where one port is."""
    return changed(settings, kafka=f"127.0.0.1:{port}", s3_endpoint=f"http://127.0.0.1:{port}", postgres_port=port)


def test_nothing_is_wrong_with_the_real_servers_and_what_was_missing_is_made(settings):
    assert service_problems(settings) == {"kafka": None, "object store": None, "postgres": None}


def test_what_is_down_is_named_with_its_address_and_how_to_start_it(settings):
    port = free_port()
    for problem in service_problems(on(settings, port)).values():
        assert problem.startswith("nothing answers at") and str(port) in problem and "scripts/services up" in problem


def test_what_does_not_speak_the_language_is_told_apart_from_what_is_down(settings):
    with silent_server() as port:
        for name, problem in service_problems(on(settings, port)).items():
            assert problem.startswith("what answers at") and str(port) in problem, (name, problem)


def test_servers_mixed_up_are_noticed(settings):
    ports = [int(settings.kafka.rpartition(":")[2]), int(settings.s3_endpoint.rpartition(":")[2])]
    assert "not Kafka" in kafka_problem(changed(settings, kafka=f"127.0.0.1:{ports[1]}"))
    wrong = changed(settings, s3_endpoint=f"http://127.0.0.1:{settings.postgres_port}")
    assert "no S3 store" in object_store_problem(wrong)
    assert "not Postgres" in postgres_problem(changed(settings, postgres_port=ports[0]))


@pytest.mark.parametrize(
    ("check", "changes", "says"),
    [
        (object_store_problem, {"s3_secret_key": "not-the-secret"}, "AWS_SECRET_ACCESS_KEY"),
        (object_store_problem, {"s3_access_key": SecretStr("nobody")}, "InvalidAccessKeyId"),
        (object_store_problem, {"s3_bucket": "Not_A_Bucket"}, "QUANTLYTIC_S3_BUCKET"),
        (object_store_problem, {"s3_endpoint": "nonsense"}, "http://host:port"),
        (postgres_problem, {"postgres_password": "not-the-secret"}, "QUANTLYTIC_POSTGRES_PASSWORD"),
        (postgres_problem, {"postgres_password": "not/the-secret"}, "another one"),
        (postgres_problem, {"postgres_user": "nobody"}, "nobody"),
        (kafka_problem, {"kafka": "nonsense"}, "host:port"),
        (kafka_problem, {"kafka_replication": 3}, "QUANTLYTIC_KAFKA_REPLICATION"),
        (kafka_problem, {"kafka_security": "SASL_SSL"}, "QUANTLYTIC_KAFKA_USER"),
        (
            kafka_problem,
            {"kafka_security": "SASL_PLAINTEXT", "kafka_user": "me", "kafka_password": "not-the-secret"},
            "SASL_PLAINTEXT",
        ),
    ],
)
def test_what_is_rejected_says_what_to_set(settings, check, changes, says):
    problem = check(changed(settings, **changes))
    assert problem is not None and says in problem
    assert "not-the-secret" not in problem and "not/the-secret" not in problem
    for secret in (settings.s3_secret_key, settings.postgres_password):
        assert secret.get_secret_value() not in problem
