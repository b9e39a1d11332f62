"""`quantlytic metrics`: serves until it is told to end, on loopback, and says so where it can't."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

COMMAND = Path(sys.executable).parent / "quantlytic"
PATIENCE = 300


def start(home, *arguments):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("QUANTLYTIC_", "DAGSTER_"))}
    return subprocess.Popen(
        [COMMAND, "metrics", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**kept, "QUANTLYTIC_HOME": str(home)},
    )


def scrape(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        return answer.read().decode()


def test_it_serves_every_part_and_ends_when_told(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    serving = start(tmp_path, "--port", str(port))
    try:
        assert f"http://127.0.0.1:{port}/metrics" in serving.stdout.readline()
        deadline = time.monotonic() + PATIENCE
        while True:
            lines = [line for line in scrape(port).splitlines() if line.startswith("quantlytic_part_up{")]
            if lines and all(line.endswith(" 1.0") for line in lines):
                break
            assert time.monotonic() < deadline, lines
            time.sleep(0.2)
        assert len(lines) >= 7 and "quantlytic_home_free_bytes" in scrape(port)
        # A second one can't have the port, and says what to do.
        second = start(tmp_path, "--port", str(port))
        _, complaint = second.communicate(timeout=PATIENCE)
        assert second.returncode == 1 and "QUANTLYTIC_METRICS_PORT" in complaint
    finally:
        serving.send_signal(signal.SIGTERM)
        _, complaint = serving.communicate(timeout=PATIENCE)
    assert serving.returncode == 0, complaint
