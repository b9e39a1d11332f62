"""A scrape shows what is known and waits for nobody; a part that fails costs its own figures only."""

import threading

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily

from quantlytic_assets.observability.collector import Part, PartsCollector
from quantlytic_tests.observability.figures import figures


def family(name, value):
    made = GaugeMetricFamily(name, "a figure")
    made.add_metric([], value)
    return [made]


class Flaky:
    """Fails when told to."""

    def __init__(self):
        self.error = None

    def __call__(self):
        if self.error:
            raise self.error
        return family("flaky", 2)


def test_a_part_that_fails_has_no_figures_and_the_others_keep_theirs():
    flaky, told = Flaky(), []
    collector = PartsCollector(
        [Part("flaky", 60, flaky), Part("steady", 60, lambda: family("steady", 1))],
        lambda part, error: told.append((part, None if error is None else str(error))),
    )

    def scrape():
        for name in collector.parts:
            collector.refresh(name)
        return figures(collector.collect())

    before = scrape()
    assert before["flaky"] == {(): 2} and before["quantlytic_part_up"] == {("flaky",): 1, ("steady",): 1}
    flaky.error = OSError("gone")
    for _ in range(3):
        during = scrape()
        assert "flaky" not in during and during["steady"] == {(): 1}
        assert during["quantlytic_part_up"] == {("flaky",): 0, ("steady",): 1}
    flaky.error = ValueError("odd")
    scrape()
    flaky.error = None
    assert scrape()["flaky"] == {(): 2}
    # Once for each change, not for each scrape.
    assert told == [("flaky", "gone"), ("flaky", "odd"), ("flaky", None)]


def test_a_part_that_hangs_holds_up_no_scrape():
    asked, answer, stopping = threading.Event(), threading.Event(), threading.Event()

    def hang():
        asked.set()
        answer.wait()
        return family("slow", 1)

    known = threading.Event()

    def quick():
        known.set()
        return family("quick", 1)

    collector = PartsCollector([Part("slow", 0.01, hang), Part("quick", 0.01, quick)], lambda *_: None)
    threads = collector.start(stopping)
    assert asked.wait(60) and known.wait(60)
    try:
        during = figures(collector.collect())
        assert during["quantlytic_part_up"][("slow",)] == 0 and "slow" not in during
    finally:
        answer.set()
        stopping.set()
        for thread in threads:
            thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert figures(collector.collect())["slow"] == {(): 1}


def test_prometheus_can_read_it():
    registry = CollectorRegistry()
    registry.register(PartsCollector([Part("steady", 60, lambda: family("steady", 1))], lambda *_: None))
    assert b'quantlytic_part_up{part="steady"} 0.0' in generate_latest(registry)
