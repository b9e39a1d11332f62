"""The MLflow UI behind the pages: one that runs anyway, or one of our own that is started when somebody wants it.

It takes hundreds of megabytes and many seconds to start, so that none is started with the pages.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quantlytic_assets.learning.registry import ModelStore


class MlflowUiError(Exception):
    """There is no MLflow UI to be had; the message says why."""


class MlflowUi:
    """Where the MLflow UI of a model store is. `url`: that of one that runs anyway. `log`: what ours writes to."""

    def __init__(self, models: ModelStore, url: str | None, log: Path):
        self._models = models
        self._url = url.rstrip("/") if url else None
        self._log = log
        self._turn = threading.Lock()
        self._process: subprocess.Popen | None = None
        self._port = 0

    def address(self) -> str | None:
        """Its address once it answers; None while it starts. The first call starts it.

        Raises `MlflowUiError` where there is no model yet, or where it ended by itself.
        """
        if self._url:
            return self._url
        with self._turn:
            if self._process is None:
                if not self._models.exists():
                    raise MlflowUiError("There are no models yet: MLflow's store is made by the first training.")
                self._start()
                return None
            if self._process.poll() is not None:
                self._process = None
                raise MlflowUiError(
                    f"The MLflow UI ended by itself. Its log is {self._log}; load this page to try again."
                )
            with socket.socket() as probe:
                answers = probe.connect_ex(("127.0.0.1", self._port)) == 0
            return f"http://127.0.0.1:{self._port}" if answers else None

    def _start(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port)]
        # The store's address may hold a password, which a command line would show to everybody on the machine.
        environment = os.environ | {
            "MLFLOW_BACKEND_STORE_URI": self._models.tracking_uri,
            "MLFLOW_DEFAULT_ARTIFACT_ROOT": self._models.artifact_root,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            # For scheduled jobs of its own, of which we have none, it would start half a dozen processes.
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "DO_NOT_TRACK": "true",
        }
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--workers", "1"], stdout=log, stderr=log, env=environment, start_new_session=True
            )

    def close(self) -> None:
        """End the one that was started."""
        with self._turn:
            if self._process is None or self._process.poll() is not None:
                return
            os.killpg(self._process.pid, 15)
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, 9)
