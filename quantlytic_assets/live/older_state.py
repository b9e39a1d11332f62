"""The kept state of versions that had three records a batch: what is to be published, served, and put in its places.

A process of such a version that was killed has left them; they are taken up once. Since then a batch has one record
(`batches`).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING

import orjson

from quantlytic_assets.live import publishing
from quantlytic_assets.live.publishing import Served
from quantlytic_assets.live.state import ROOT, Message

if TYPE_CHECKING:
    from quantlytic_assets.serving.hot_store import Reader, Writer
    from quantlytic_assets.universe.models import Dataset

_PUT, _DELETE, _DELETE_BEFORE = range(3)
# Of an entry of what is changed: what is done, and how many bytes its name and its value have.
_HEAD = struct.Struct(">BHI")


def take_up(writer: Writer, dataset: Dataset, columns: Mapping[str, Sequence[str]]) -> None:
    """Serve what is not served yet, and put what was changed in its places. columns: of features, by interval."""
    below = (ROOT, dataset.name)
    rows = [
        Served._make((*one[:3], date.fromisoformat(one[3]), *one[4:]))
        for _, kept in writer.states(*below, "unserved")
        for one in orjson.loads(kept)
    ]
    publishing.write(writer, dataset, rows, columns)
    for _, kept in list(writer.states(*below, "changes")):
        _change(writer, below, kept)
    for kind in ("unserved", "changes"):
        for (number,) in [name for name, _ in writer.states(*below, kind)]:
            writer.delete_state(*below, kind, number)


def outbox(reader: Reader, dataset: Dataset) -> list[Message]:
    """What is to be published of the last transactions, and may be already."""
    kept = reader.state(ROOT, dataset.name, "outbox")
    return [Message(topic, key, name, value.encode()) for topic, key, name, value in orjson.loads(kept or b"[]")]


def forget_outbox(writer: Writer, dataset: Dataset) -> None:
    """Delete what was to be published, when the bus has it."""
    writer.delete_state(ROOT, dataset.name, "outbox")


def _change(writer: Writer, below: tuple[str, ...], kept: bytes) -> None:
    """Do what a record says: its entries one after the other."""
    at = 0
    while at < len(kept):
        what, key, size = _HEAD.unpack_from(kept, at)
        at += _HEAD.size
        name = tuple(kept[at : at + key].decode().split("\0"))
        value = kept[at + key : at + key + size]
        at += key + size
        if what == _PUT:
            writer.put_state(value, *below, *name)
        elif what == _DELETE:
            writer.delete_state(*below, *name)
        else:
            *of, first = name
            for (gone,) in [one for one, _ in writer.states(*below, *of) if one[0] < first]:
                writer.delete_state(*below, *of, gone)
