"""Which of a partition's objects count: the names of compacted objects, and the manifests that bring them into force.

A partition's folder holds segments (as landing wrote them), compacted objects `compacted-<n>-<digest>.parquet`, and
manifests `compacted-<n>.json`. The manifest with the highest number is in force: it names the compacted objects that
count and everything that they replace, also what earlier ones replaced. Segments that it does not name count beside
them; any other compacted object does not count. Who writes them, and how that is made safe, is in `compaction`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime

import obstore
from obstore.store import ObjectStore

_NAME = re.compile(r"compacted-(?P<number>\d{6})(?P<digest>-[0-9a-f]{16})?\.(?:parquet|json)")
_AT_ONCE = 16


class ArchiveDamaged(Exception):
    """An object that should be in the archive is not there. Nothing may be concluded from what else is."""


@dataclass(frozen=True)
class Stored:
    """An object as a listing shows it: path below the archive's root, bytes, time of writing."""

    path: str
    size: int
    modified: datetime

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def folder(self) -> str:
        """The path up to the name."""
        return self.path.rpartition("/")[0]


@dataclass(frozen=True)
class Manifest:
    """What the compactions of a partition up to the `number`-th came to; number 0 stands for none at all.

    `objects`: sizes of the compacted objects that count, by name. `replaces`: names of what they are made of.
    """

    number: int = 0
    objects: dict[str, int] = field(default_factory=dict)
    replaces: frozenset[str] = frozenset()

    def to_json(self) -> bytes:
        """As it is stored."""
        return json.dumps({"objects": self.objects, "replaces": sorted(self.replaces)}).encode()


@dataclass(frozen=True)
class Contents:
    """A partition's folder: the number of its manifest in force, the objects that count, and all that is stored."""

    folder: str
    number: int
    live: list[Stored]
    stored: list[Stored]


def manifest_name(number: int) -> str:
    """The name of a manifest."""
    return f"compacted-{number:06d}.json"


def compacted_name(number: int, digest: str) -> str:
    """The name of a compacted object that the `number`-th manifest of its partition may bring into force."""
    return f"compacted-{number:06d}-{digest[:16]}.parquet"


def compaction_number(name: str) -> int | None:
    """The number in the name of a compacted object or manifest (or path to one); None for a segment's."""
    found = _NAME.fullmatch(name.rpartition("/")[2])
    return int(found["number"]) if found else None


def is_compacted(path: str) -> bool:
    """Whether a path is a compacted object's."""
    return path.endswith(".parquet") and compaction_number(path) is not None


def list_stored(store: ObjectStore, prefix: str, offset: str | None = None) -> Iterable[Stored]:
    """What stands below a prefix, `offset` and everything before it in the order of names left out."""
    for batch in obstore.list(store, prefix=prefix, offset=offset):
        for item in batch:
            yield Stored(item["path"], item["size"], item["last_modified"])


def contents(store: ObjectStore, stored: Iterable[Stored]) -> list[Contents]:
    """The partitions' folders among a listing, each listed in full, in the order of their names.

    Manifests are read only where names alone don't tell what counts. Raises `ArchiveDamaged` where an object that a
    manifest names is gone.
    """
    folders: dict[str, list[Stored]] = {}
    for one in stored:
        folders.setdefault(one.folder, []).append(one)
    ordered = sorted(folders.items())
    if not any(_newest(entries) for _, entries in ordered):
        return [_settled(folder, entries) for folder, entries in ordered]
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return list(threads.map(lambda entry: _contents(store, *entry), ordered))


def _newest(entries: Sequence[Stored]) -> int:
    """The highest number of a manifest in a folder."""
    return max((compaction_number(one.name) or 0 for one in entries if one.name.endswith(".json")), default=0)


def _settled(folder: str, entries: list[Stored]) -> Contents:
    """A folder without a manifest."""
    live = [one for one in entries if one.name.endswith(".parquet") and not is_compacted(one.name)]
    return Contents(folder, 0, sorted(live, key=lambda one: one.path), entries)


def _contents(store: ObjectStore, folder: str, entries: list[Stored]) -> Contents:
    # A listing is no picture of one moment: what was compacted while it was made is seen by making it again.
    for _ in range(3):
        number = _newest(entries)
        if number == 0:
            return _settled(folder, entries)
        objects = [one for one in entries if one.name.endswith(".parquet")]
        if len(objects) == 1 and compaction_number(objects[0].name) == number:
            return Contents(folder, number, objects, entries)
        try:
            manifest = read_manifest(store, folder, number)
        except FileNotFoundError:
            manifest = None
        if manifest is not None and manifest.objects.keys() <= {one.name for one in objects}:
            live = [one for one in objects if _counts(one.name, manifest)]
            return Contents(folder, number, sorted(live, key=lambda one: one.path), entries)
        entries = list(list_stored(store, f"{folder}/"))
    missing = sorted((manifest.objects.keys() if manifest else {manifest_name(number)}) - {one.name for one in entries})
    raise ArchiveDamaged(f"the archive lacks {', '.join(missing)} of {folder}, which its manifest {number} names")


def _counts(name: str, manifest: Manifest) -> bool:
    return name in manifest.objects if is_compacted(name) else name not in manifest.replaces


def read_manifest(store: ObjectStore, folder: str, number: int) -> Manifest:
    """A manifest by its number. Raises `FileNotFoundError` where there is none."""
    if number == 0:
        return Manifest()
    content = json.loads(bytes(obstore.get(store, f"{folder}/{manifest_name(number)}").bytes()))
    return Manifest(number, content["objects"], frozenset(content["replaces"]))
