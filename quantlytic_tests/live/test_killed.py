"""The short form of `python -m quantlytic_tests.live.killing`: the live path is killed under load."""

from quantlytic_tests.live.killing import killed
from quantlytic_tests.storage.places import opened


def test_kills_at_random_moments_leave_what_an_undisturbed_live_path_publishes(tmp_path):
    with opened("embedded", tmp_path) as place:
        assert killed(place, kills=8, seed=3) == ""
