"""The short form of `make faults`: a few strikes of those kinds that take no mount of a small server disk."""

import subprocess
import sys

KINDS = ["landing run killed", "Kafka restarted", "Postgres restarted", "disk full, embedded"]


def test_nothing_is_lost_and_nothing_twice_whatever_is_killed():
    command = [sys.executable, "-m", "quantlytic_tests.faults", "--short", "--only", *KINDS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "NOT TRIED" not in done.stdout
    for kind in KINDS:
        assert kind in done.stdout
