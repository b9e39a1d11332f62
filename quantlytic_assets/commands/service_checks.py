"""What `quantlytic doctor` asks of Kafka, the object store and Postgres: does each answer, as itself, to our keys.

Each check returns what is wrong and what to do about it, or None. Addresses and user names are told, secrets never. The
clients' own patience is for outages while runs are under way; here a few seconds have to do.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    from quantlytic_assets.settings import Settings

_SECONDS = 3
_START = 'start it (docker compose up -d, or scripts/services up and eval "$(scripts/services env)")'
_DATABASES = ("dagster", "lake", "state", "mlflow")


def service_problems(settings: Settings) -> dict[str, str | None]:
    """What is wrong with each service by name, all asked at the same time; raises nothing."""
    checks: dict[str, Callable[[Settings], str | None]] = {
        "kafka": kafka_problem,
        "object store": object_store_problem,
        "postgres": postgres_problem,
    }
    with ThreadPoolExecutor(len(checks)) as threads:
        return dict(zip(checks, threads.map(lambda check: check(settings), checks.values()), strict=True))


def _connects(address: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(address, timeout=_SECONDS):
            return True
    except OSError:
        return False


def _addresses(servers: str) -> list[tuple[str, int]]:
    """host:port pairs; raises `ValueError` for text that is none."""
    pairs = (server.strip().rpartition(":") for server in servers.split(","))
    return [(host.strip("[]"), int(port)) for host, _, port in pairs]


def kafka_problem(settings: Settings) -> str | None:
    """Whether a Kafka cluster answers at QUANTLYTIC_KAFKA."""
    from kafka import KafkaAdminClient
    from kafka.errors import KafkaError

    where = f"QUANTLYTIC_KAFKA={settings.kafka}"
    try:
        addresses = _addresses(settings.kafka)
    except ValueError:
        return f"{where} is no list of host:port; set it to your brokers' addresses"
    with ThreadPoolExecutor(len(addresses)) as threads:
        if not any(threads.map(_connects, addresses)):
            return f"nothing answers at {where}; {_START} or set it to where Kafka is"
    options: dict = {"security_protocol": settings.kafka_security}
    if settings.kafka_security.startswith("SASL"):
        password = settings.kafka_password
        if settings.kafka_user is None or password is None:
            return f"QUANTLYTIC_KAFKA_SECURITY={settings.kafka_security} needs QUANTLYTIC_KAFKA_USER and _PASSWORD"
        options |= {
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_plain_username": settings.kafka_user,
            "sasl_plain_password": password.get_secret_value(),
        }
    # What its client logs is said in one line below.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    try:
        client = KafkaAdminClient(
            bootstrap_servers=settings.kafka.split(","),
            client_id="quantlytic-doctor",
            bootstrap_timeout_ms=_SECONDS * 1000,
            request_timeout_ms=_SECONDS * 1000,
            **options,
        )
    except (KafkaError, OSError, ValueError) as error:
        return (
            f"what answers at {where} is not Kafka, or not with QUANTLYTIC_KAFKA_SECURITY={settings.kafka_security} "
            f"({type(error).__name__}); check the port, the security and the user"
        )
    try:
        brokers = client.describe_cluster()["brokers"]
    except KafkaError as error:
        return f"Kafka at {where} gives no answer about its cluster ({type(error).__name__}); look at its log"
    finally:
        client.close()
    told = [(broker["host"], broker["port"]) for broker in brokers]
    away = [f"{host}:{port}" for host, port in told if not _connects((host, port))]
    if away:
        return (
            f"Kafka at {where} tells clients to go to {', '.join(away)}, where nothing answers; set its "
            "advertised.listeners to an address that this machine reaches"
        )
    if len(told) < settings.kafka_replication:
        return (
            f"QUANTLYTIC_KAFKA_REPLICATION={settings.kafka_replication}, but the cluster has {len(told)} brokers; "
            "set it to that or less"
        )
    return None


def object_store_problem(settings: Settings) -> str | None:
    """Whether the S3 store takes the keys and keeps a create-only object, which the landing claims rest on."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    from quantlytic_assets.settings import revealed
    from quantlytic_assets.storage.object_store import S3Place

    where = f"AWS_ENDPOINT_URL={settings.s3_endpoint}" if settings.s3_endpoint else f"AWS in {settings.s3_region}"
    access, secret = revealed(settings.s3_access_key), revealed(settings.s3_secret_key)
    patience = Config(connect_timeout=_SECONDS, read_timeout=_SECONDS, retries={"total_max_attempts": 1})
    try:
        client = boto3.client(
            "s3",
            endpoint_url=settings.s3_endpoint,
            region_name=settings.s3_region,
            aws_access_key_id=access,
            aws_secret_access_key=secret,
            config=patience,
        )
        client.list_objects_v2(Bucket=settings.s3_bucket, MaxKeys=1)
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code != "NoSuchBucket":
            return _store_problem(settings, where, code)
    except ValueError as error:
        return f"{where} is no address of a store ({error}); set it to http://host:port"
    except BotoCoreError as error:
        if type(error).__name__ in ("EndpointConnectionError", "ConnectTimeoutError"):
            return f"nothing answers at {where}; {_START} or set it to where the store is"
        return f"what answers at {where} is no S3 store ({type(error).__name__}); check the address"
    place = S3Place(settings.s3_bucket, settings.namespace, settings.s3_endpoint, settings.s3_region, access, secret)
    try:
        place.make_bucket()
    except (ClientError, BotoCoreError) as error:
        return (
            f"there is no bucket {settings.s3_bucket} at {where}, and the key may not make it "
            f"({type(error).__name__}); make it, or set QUANTLYTIC_S3_BUCKET to one that exists"
        )
    return _keeps_the_first(place, where)


def _store_problem(settings: Settings, where: str, code: str) -> str:
    if code in ("InvalidAccessKeyId", "SignatureDoesNotMatch"):
        return f"{where} rejects the keys ({code}); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to the store's"
    if code in ("AccessDenied", "AllAccessDisabled"):
        return (
            f"the key may not read the bucket {settings.s3_bucket} at {where} ({code}); grant it, or set "
            "QUANTLYTIC_S3_BUCKET to a bucket of yours"
        )
    if code == "InvalidBucketName":
        return (
            f"QUANTLYTIC_S3_BUCKET={settings.s3_bucket} can't be a bucket; set it to lower-case letters, digits and -"
        )
    return f"what answers at {where} is no S3 store, or has trouble of its own ({code or 'no code'}); check the address"


def _keeps_the_first(place: object, where: str) -> str | None:
    """Write an object twice with create-only: the second must be rejected."""
    import obstore
    from obstore.exceptions import AlreadyExistsError, BaseError

    store, name = place.store("doctor"), uuid4().hex  # type: ignore[attr-defined]
    try:
        obstore.put(store, name, b"first", mode="create")
        try:
            obstore.put(store, name, b"second", mode="create")
        except AlreadyExistsError:
            return None
        return f"the store at {where} overwrites an object that must only be created (If-None-Match); use another store"
    except (BaseError, PermissionError) as error:
        return f"{where} keeps no object ({type(error).__name__}); grant the key to write, and look for space"
    finally:
        _remove(store, name)


def _remove(store: Any, name: str) -> None:
    import obstore
    from obstore.exceptions import BaseError

    try:
        obstore.delete(store, name)
    except (BaseError, FileNotFoundError, PermissionError) as error:
        logging.getLogger(__name__).debug("the probe object %s stays: %s", name, error)


def postgres_problem(settings: Settings) -> str | None:
    """Whether Postgres lets the user in and has the databases, or lets them be made."""
    import psycopg2
    from sqlalchemy.exc import SQLAlchemyError

    from quantlytic_assets.settings import revealed
    from quantlytic_assets.storage.postgres import ensure_database

    where = f"{settings.postgres_host}:{settings.postgres_port} (QUANTLYTIC_POSTGRES_HOST, _PORT)"
    password = revealed(settings.postgres_password)
    if "/" in password:
        return "QUANTLYTIC_POSTGRES_PASSWORD has a /, which Dagster's storage can't bear; give the role another one"
    for part in _DATABASES:
        name = settings.database(part)
        try:
            psycopg2.connect(
                host=settings.postgres_host,
                port=settings.postgres_port,
                user=settings.postgres_user,
                password=password,
                dbname=name,
                connect_timeout=_SECONDS,
            ).close()
            continue
        except psycopg2.OperationalError as error:
            told = str(error)
        if f'database "{name}" does not exist' not in told:
            return _postgres_problem(settings, where, told)
        try:
            ensure_database(settings.postgres_url(part))
        except SQLAlchemyError:
            return (
                f"Postgres at {where} has no database {name}, and {settings.postgres_user} may not make it; as its "
                f"administrator: CREATE DATABASE {name} OWNER {settings.postgres_user}"
            )
    return None


def _postgres_problem(settings: Settings, where: str, told: str) -> str:
    if "password authentication failed" in told or "no password supplied" in told:
        return (
            f"Postgres at {where} rejects the user {settings.postgres_user} (QUANTLYTIC_POSTGRES_USER) with the "
            "password given; set QUANTLYTIC_POSTGRES_PASSWORD to the role's"
        )
    if not _connects((settings.postgres_host, settings.postgres_port)):
        return f"nothing answers at {where}; {_START} or set them to where Postgres is"
    if "starting up" in told or "shutting down" in told:
        return f"Postgres at {where} is starting up or shutting down; try again in a moment"
    if "too many clients" in told or "too many connections" in told or "remaining connection slots" in told:
        return f"Postgres at {where} has no connection left; raise its max_connections or end idle programs"
    last = told.strip().splitlines()[-1] if told.strip() else "no reason given"
    return f"what answers at {where} is not Postgres, or rejects {settings.postgres_user} ({last}); check the address"
