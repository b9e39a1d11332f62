"""Servers of our own, started by `scripts/services` in a directory of their own, to be stopped and killed at will."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from quantlytic_assets.settings import CHECKOUT


class Servers:
    """Kafka, MinIO and Postgres with their data below `directory`, on free ports."""

    def __init__(self, directory: Path):
        self.directory = directory

    def _call(self, *arguments: str) -> None:
        command = [str(CHECKOUT / "scripts" / "services"), *arguments, "--directory", str(self.directory)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"scripts/services {' '.join(arguments)}: {done.stderr.strip()}")

    def up(self) -> None:
        """Start all three."""
        self._call("up", "--free-ports")

    def down(self) -> None:
        """End all three."""
        self._call("down")

    def start(self, name: str) -> None:
        """Start one again, and return when it answers."""
        self._call("start", name)

    def stop(self, name: str) -> None:
        """End one in good order."""
        self._call("stop", name)

    def kill(self, name: str) -> None:
        """End one with SIGKILL."""
        self._call("kill", name)

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs in its environment to use them."""
        lines = (self.directory / "environment").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    @property
    def native(self) -> bool:
        """Whether they are processes of this machine, with their data below `directory`; else they are Docker's."""
        return json.loads((self.directory / "settings.json").read_text())["mode"] == "native"
