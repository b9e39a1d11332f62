"""The short form of `python -m quantlytic_tests.live.killing`: the live path or its broker is killed under load."""

import subprocess
import sys

from quantlytic_tests.live.killing import killed
from quantlytic_tests.storage.places import opened


def test_kills_at_random_moments_leave_what_an_undisturbed_live_path_publishes(tmp_path):
    with opened("embedded", tmp_path) as place:
        assert killed(place, kills=8, seed=3) == ""


def test_kills_of_kafka_lose_no_bar_and_double_none():
    # In a process of its own, because its broker is not the one that the other tests share.
    command = [sys.executable, "-m", "quantlytic_tests.live.killing", "--live", "0", "--kafka", "3", "--seed", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Kafka killed 3 times" in done.stdout and "nothing lost, nothing twice" in done.stdout
