"""Figures of the bus and of what landing made of it: records waiting, bars landed, records rejected and lost."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from quantlytic_assets.storage.archive import Archive, Claim, life_name
from quantlytic_assets.storage.bus import DEAD_LETTERS, Bus, bars_topic
from quantlytic_assets.storage.landing import LOST, REJECTED, Lander

_COUNTS = ("bars", "bytes", "rejected", "lost")


def bus_metrics(bus: Bus, archive: Archive, landers: Callable[[str], Lander], datasets: Iterable[str]) -> list[Metric]:
    """Per dataset and bus partition: the end offset, and how many offsets before it are not landed yet.

    Only looks: a topic that was made anew and that nobody has landed from yet counts as not landed at all.
    """
    lag = GaugeMetricFamily(
        "quantlytic_bus_lag_records",
        "records on the bus that are not in the archive yet",
        labels=["dataset", "topic", "partition"],
    )
    end = GaugeMetricFamily(
        "quantlytic_bus_end_offset",
        "offset that the next record will get",
        labels=["dataset", "topic", "partition"],
    )
    for dataset in datasets:
        topic = bars_topic(dataset)
        identity = bus.identity(topic)
        if identity is None:
            continue
        lives = archive.lives(dataset, topic)
        life = life_name(topic, lives.index(identity)) if identity in lives else None
        for partition, (_, last) in bus.watermarks(topic).items():
            through = landers(dataset).landed_through(life, partition) if life is not None else 0
            labels = [dataset, topic, str(partition)]
            lag.add_metric(labels, max(0, last - through))
            end.add_metric(labels, last)
    letters = GaugeMetricFamily("quantlytic_dead_letters", "records on the dead-letter topic")
    letters.add_metric([], sum(last - first for first, last in bus.watermarks(DEAD_LETTERS).values()))
    return [lag, end, letters]


class LandedTally:
    """Counts what claims have landed, reading each claim once. What was read is remembered in `directory`.

    The first time ever it reads all claims there are. Counters go on where they were when the exporter starts again,
    so that what was landed meanwhile is counted too.
    """

    def __init__(self, archive: Archive, datasets: Sequence[str], directory: Path):
        self.archive = archive
        self.datasets = list(datasets)
        # One for each archive: the same directory may serve both profiles.
        self._file = directory / f"landed-{hashlib.sha256(archive.root.encode()).hexdigest()[:16]}.json"
        self._known: dict[str, dict] = self._load()

    def _load(self) -> dict[str, dict]:
        try:
            return json.loads(self._file.read_text())
        except (OSError, ValueError):
            return {}

    def _save(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        partial = self._file.with_suffix(f".{os.getpid()}.tmp")
        partial.write_text(json.dumps(self._known, sort_keys=True))
        partial.replace(self._file)

    def metrics(self) -> list[Metric]:
        """Bars and bytes landed, records rejected and lost, per dataset."""
        before = json.dumps(self._known, sort_keys=True)
        for dataset in self.datasets:
            self._count(dataset)
        if json.dumps(self._known, sort_keys=True) != before:
            self._save()
        families = {
            "bars": CounterMetricFamily("quantlytic_landed_bars", "bars landed in the archive", labels=["dataset"]),
            "bytes": CounterMetricFamily("quantlytic_landed_bytes", "bytes landed in the archive", labels=["dataset"]),
            "rejected": CounterMetricFamily(
                "quantlytic_rejected_records", "records that are no bar, kept as rejected", labels=["dataset"]
            ),
            "lost": CounterMetricFamily(
                "quantlytic_lost_records", "records gone from the bus before they could be landed", labels=["dataset"]
            ),
        }
        for dataset in self.datasets:
            for name, family in families.items():
                family.add_metric([dataset], self._known[dataset][name])
        return list(families.values())

    def _count(self, dataset: str) -> None:
        known = self._known.setdefault(dataset, {**dict.fromkeys(_COUNTS, 0), "through": {}})
        topic = bars_topic(dataset)
        for number in range(len(self.archive.lives(dataset, topic))):
            life = life_name(topic, number)
            for partition in self.archive.claimed_partitions(dataset, life):
                place = f"{life}.{partition}"
                since = known["through"].get(place, 0)
                for claim in self.archive.claims(dataset, life, partition, since):
                    # Claims are done in no certain order; those after an open one are counted once it is done.
                    if not claim.done:
                        break
                    if claim.first >= since:
                        _add(known, self.archive.with_landed(dataset, claim))
                        known["through"][place] = claim.last


def _add(known: dict, claim: Claim) -> None:
    for key, entry in (claim.landed or {}).items():
        if key == LOST:
            known["lost"] += entry["rows"]
        elif key == REJECTED:
            known["rejected"] += entry["rows"]
        else:
            known["bars"] += entry["rows"]
            known["bytes"] += entry["bytes"]


def archive_metrics(archive: Archive, datasets: Iterable[str]) -> list[Metric]:
    """Size of each dataset's bars in the archive. Lists every object: for now and then, not for each scrape."""
    size = GaugeMetricFamily("quantlytic_archive_bytes", "bytes of bars in the archive", labels=["dataset"])
    objects = GaugeMetricFamily("quantlytic_archive_objects", "objects of bars in the archive", labels=["dataset"])
    for dataset in datasets:
        stored = archive.objects(dataset)
        size.add_metric([dataset], sum(one.size for one in stored))
        objects.add_metric([dataset], len(stored))
    return [size, objects]
