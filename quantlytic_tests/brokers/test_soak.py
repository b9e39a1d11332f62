"""The short form of the soak: a process killed and a line cut at random moments lose, double and change nothing."""

from quantlytic_tests.brokers.soak import Soak


def test_kills_and_drops_lose_and_double_nothing(tmp_path):
    told = Soak(tmp_path, sessions=3, seed=7).run(kills=12, drops=12)
    assert told.wrong == () and told.kills == 12 and told.drops >= 12
    # Of kills nearly all meet a connection, of drops all.
    assert told.connections >= 20 and told.orders >= 6 and told.fills >= 2
