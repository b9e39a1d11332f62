"""Each server: how its data is laid out, how it is started, and how it is known to answer.

Processes and their ids are `processes`' business.
"""

from __future__ import annotations

import http.client
import os
import pwd
import shutil
import socket
import struct
import subprocess
import tempfile
from pathlib import Path

from local_services import process_table, software
from local_services.place import HOST, Place, ServiceError, say

_PATIENCE = 5.0


class Server:
    """One server of a place. `name` is also that of its directory, pid file and log."""

    name = ""
    stop_signal = "SIGTERM"

    def __init__(self, place: Place):
        self.place = place

    @property
    def port(self) -> int:
        """The port that it answers on."""
        return self.place.port(self.name)

    @property
    def ports(self) -> list[int]:
        """All ports that it takes."""
        return [self.port]

    def prepare(self) -> None:
        """Lay out its data where that is not done yet."""
        raise NotImplementedError

    def command(self) -> list[str]:
        """What starts it, in the foreground. Its arguments name the data directory, by which it is known."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Variables of its process."""
        return dict(os.environ)

    def user(self) -> pwd.struct_passwd | None:
        """The user it runs as, where that is not the present one."""
        return None

    def data(self) -> Path:
        """Its data directory."""
        return self.place.directory / self.name / "data"

    def answers(self) -> bool:
        """Whether it truly answers now, as itself."""
        raise NotImplementedError


class Kafka(Server):
    """One Kafka node that is broker and controller."""

    name = "kafka"

    @property
    def ports(self) -> list[int]:
        """Broker and controller."""
        return [self.port, self.place.port("kafka_controller")]

    @property
    def _properties(self) -> Path:
        return self.place.path(self.name, "server.properties")

    def _java(self, *arguments: str) -> list[str]:
        logging = Path(__file__).with_name("kafka_log4j2.properties")
        return [
            software.java() or "java",
            "-Xms128m",
            "-Xmx512m",
            "-XX:+ExitOnOutOfMemoryError",
            "-Djava.awt.headless=true",
            f"-Dlog4j2.configurationFile={logging}",
            "-cp",
            f"{software.kafka_jars()}/*",
            *arguments,
        ]

    def prepare(self) -> None:
        """Write the properties; format the log directory once."""
        controller = self.place.port("kafka_controller")
        properties = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{HOST}:{controller}",
            "listeners": f"PLAINTEXT://{HOST}:{self.port},CONTROLLER://{HOST}:{controller}",
            "advertised.listeners": f"PLAINTEXT://{HOST}:{self.port}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": _escaped(self.data()),
            # The code makes its topics, with settings of its own.
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 4,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "share.coordinator.state.topic.num.partitions": 1,
            "group.initial.rebalance.delay.ms": 0,
            # What a small heap can bear; the default alone is a quarter of it.
            "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
        }
        self._write(self._properties, properties)
        if self.data().exists():
            return
        partial = _beside(self.data())
        (partial / "data").mkdir()
        once = partial / "server.properties"
        self._write(once, {**properties, "log.dirs": _escaped(partial / "data")})
        formatting = self._java("kafka.tools.StorageTool", "format", "-t", _cluster_id(), "-c", str(once))
        _run("Kafka's log directory", formatting)
        (partial / "data").rename(self.data())
        shutil.rmtree(partial)

    @staticmethod
    def _write(path: Path, properties: dict[str, object]) -> None:
        path.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))

    def command(self) -> list[str]:
        """See `Server.command`."""
        return self._java("kafka.Kafka", str(self._properties))

    def answers(self) -> bool:
        """Whether it names itself as a broker in answer to a metadata request (version 4, no topics)."""
        client = b"\x00\x08services"
        request = struct.pack(">hhi", 3, 4, 7) + client + struct.pack(">i", 0) + b"\x00"
        try:
            with socket.create_connection((HOST, self.port), timeout=_PATIENCE) as connection:
                connection.sendall(struct.pack(">i", len(request)) + request)
                (length,) = struct.unpack(">i", _exactly(connection, 4))
                answer = _exactly(connection, min(length, 100_000))
        except (OSError, EOFError):
            return False
        if len(answer) < 12:
            return False
        correlation, _throttle, brokers = struct.unpack(">iii", answer[:12])
        return correlation == 7 and brokers >= 1


class Minio(Server):
    """One MinIO with one bucket."""

    name = "minio"

    def prepare(self) -> None:
        """A directory below its data is a bucket."""
        (self.data() / self.place.settings["bucket"]).mkdir(parents=True, exist_ok=True)

    def command(self) -> list[str]:
        """See `Server.command`."""
        return [str(software.minio()), "server", str(self.data()), "--address", f"{HOST}:{self.port}", "--quiet"]

    def environment(self) -> dict[str, str]:
        """Its credentials; no console, no calls home."""
        return {
            **os.environ,
            "MINIO_ROOT_USER": self.place.settings["s3_access_key"],
            "MINIO_ROOT_PASSWORD": self.place.settings["s3_secret_key"],
            "MINIO_BROWSER": "off",
            "MINIO_UPDATE": "off",
            "MINIO_CALLHOME_ENABLE": "off",
        }

    def answers(self) -> bool:
        """Whether its health page says that it is ready."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=_PATIENCE)
        try:
            connection.request("GET", "/minio/health/ready")
            response = connection.getresponse()
            return response.status == 200 and response.getheader("Server") == "MinIO"
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


class Postgres(Server):
    """One Postgres with the role `quantlytic`, which may make databases; it refuses to run as root."""

    name = "postgres"
    # "Fast": open sessions are ended.
    stop_signal = "SIGINT"

    def user(self) -> pwd.struct_passwd | None:
        """See `Server.user`: as root it runs as the system's postgres, or as nobody."""
        if os.geteuid() != 0:
            return None
        for name in ("postgres", "nobody"):
            try:
                return pwd.getpwnam(name)
            except KeyError:
                continue
        raise ServiceError("Postgres refuses to run as root, and there is no user postgres or nobody to run it as")

    def data(self) -> Path:
        """Below the directory; as root, where its user can't get there, below /var/tmp."""
        beside = self.place.directory / self.name / "data"
        user = self.user()
        if user is None or _can_pass(user, self.place.directory):
            return beside
        name = str(self.place.directory).strip("/").replace("/", "-")
        return Path("/var/tmp") / f"quantlytic-postgres-{name}" / "data"

    def prepare(self) -> None:
        """Make the cluster and its role, once. A cluster that was not finished is made anew."""
        data, user = self.data(), self.user()
        if data.exists():
            self._forget_ended()
            return
        if user is not None and self.place.directory not in data.parents:
            say(f"Postgres' data is in {data}: its user {user.pw_name} does not get into {self.place.directory}")
        partial = _beside(data)
        if user is not None:
            for path in (data.parent, partial):
                os.chown(path, user.pw_uid, user.pw_gid)
        passwords = partial / "initial"
        programs = _postgres_programs()
        settings = self.place.settings
        with os.fdopen(os.open(passwords, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as handle:
            handle.write(settings["postgres_admin_password"])
        try:
            if user is not None:
                os.chown(passwords, user.pw_uid, user.pw_gid)
            _run("Postgres' data directory", [
                str(programs / "initdb"), "-D", str(partial / "data"), "-U", "postgres", "--pwfile", str(passwords),
                "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-instructions",
            ], user=user)  # fmt: skip
        finally:
            passwords.unlink(missing_ok=True)
        # In single-user mode a statement ends with its line. Generated passwords need no quoting.
        _run(
            "the role quantlytic",
            [str(programs / "postgres"), "--single", "-D", str(partial / "data"), "postgres"],
            user=user,
            told="SET password_encryption = 'scram-sha-256'\n"
            f"CREATE ROLE quantlytic LOGIN CREATEDB PASSWORD '{settings['postgres_password']}'\n",
        )
        (partial / "data").rename(data)
        shutil.rmtree(partial)

    def _forget_ended(self) -> None:
        """Take away the lock file of a process that was killed and that nobody has waited for yet.

        To Postgres it would seem to live on. Its children are gone: `processes.kill` ends them with it.
        """
        lock = self.data() / "postmaster.pid"
        try:
            pid = int(lock.read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return
        if process_table.is_zombie(pid):
            lock.unlink()

    def command(self) -> list[str]:
        """See `Server.command`."""
        options = {
            "listen_addresses": HOST,
            "port": self.port,
            "unix_socket_directories": "",
            "fsync": "on",
            "shared_buffers": "64MB",
            "max_connections": 200,
            "password_encryption": "scram-sha-256",
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        flags = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return [str(_postgres_programs() / "postgres"), "-D", str(self.data()), *flags]

    def answers(self) -> bool:
        """Whether it asks for a password (as pg_isready does; while it starts up it answers with an error)."""
        words = b"user\x00quantlytic\x00database\x00postgres\x00\x00"
        request = struct.pack(">ii", len(words) + 8, 196_608) + words
        try:
            with socket.create_connection((HOST, self.port), timeout=_PATIENCE) as connection:
                connection.sendall(request)
                # All of the short answer: what is left unread when a connection closes is an error in its log.
                return connection.recv(4096)[:1] == b"R"
        except (OSError, EOFError):
            return False


def servers(place: Place) -> dict[str, Server]:
    """All servers of a place by name, in the order they are started."""
    return {kind.name: kind(place) for kind in (Postgres, Minio, Kafka)}


def _beside(data: Path) -> Path:
    """A fresh directory beside a data directory, to make it in; leftovers of killed attempts are removed.

    Each attempt has its own: a step of a killed one may still be writing.
    """
    data.parent.mkdir(parents=True, exist_ok=True)
    for leftover in data.parent.glob("partial.*"):
        shutil.rmtree(leftover, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix="partial.", dir=data.parent))


def _escaped(path: Path) -> str:
    """A path as a Java properties file has it."""
    return str(path).replace("\\", "\\\\")


def _run(what: str, command: list[str], user: pwd.struct_passwd | None = None, told: str = "") -> None:
    """A step of preparing; raises `ServiceError` with the end of its output."""
    done = subprocess.run(
        command, input=told, capture_output=True, text=True, cwd="/", **(as_user(user) if user else {})
    )
    if done.returncode:
        tail = "\n  ".join((done.stdout + done.stderr).strip().splitlines()[-8:])
        program = Path(command[0]).name
        raise ServiceError(f"{what} could not be made ({program} ended with {done.returncode}):\n  {tail}")


def as_user(user: pwd.struct_passwd) -> dict:
    """Arguments of `subprocess` that make a child another user's."""
    return {
        "user": user.pw_uid,
        "group": user.pw_gid,
        "extra_groups": [],
        "env": {**os.environ, "HOME": "/", "USER": user.pw_name, "LOGNAME": user.pw_name},
    }


def _can_pass(user: pwd.struct_passwd, directory: Path) -> bool:
    """Whether a user gets into a directory that exists."""
    return subprocess.run(["test", "-x", str(directory)], **as_user(user), cwd="/").returncode == 0


def _exactly(connection: socket.socket, count: int) -> bytes:
    """`count` bytes of an answer; raises `EOFError` where it ends before."""
    parts = []
    while count:
        part = connection.recv(count)
        if not part:
            raise EOFError
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _cluster_id() -> str:
    """A random Kafka id: sixteen bytes in URL-safe base64. A leading dash would be taken for an option."""
    import base64
    import uuid

    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text


def _postgres_programs() -> Path:
    found = software.postgres_programs()
    if found is None:
        raise ServiceError("Postgres' programs are missing: scripts/services install")
    return found
