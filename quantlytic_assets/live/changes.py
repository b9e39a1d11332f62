"""What a batch changes of the kept state, as one record: its places lie all over the store, symbol by symbol.

The record is written in the batch's transaction, and the places later, when the signals are out. A process that goes on
after a kill writes them first.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quantlytic_assets.serving.hot_store import Writer

_PUT, _DELETE, _DELETE_BEFORE = range(3)
# Of an entry: what is done, and how many bytes its name and its value have.
_HEAD = struct.Struct(">BHI")


class Changes:
    """Entries that are put and deleted, in this order. Names are below one that is given when they are written."""

    def __init__(self) -> None:
        self._entries: list[tuple[int, tuple[str, ...], bytes]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, value: bytes, *name: str) -> None:
        """Keep these bytes under this name."""
        self._entries.append((_PUT, name, value))

    def delete(self, *name: str) -> None:
        """Delete what is kept under this name, if anything is."""
        self._entries.append((_DELETE, name, b""))

    def delete_before(self, *name: str) -> None:
        """Delete what is kept under names that are this one but for their last part, which is before this one's."""
        self._entries.append((_DELETE_BEFORE, name, b""))

    def write(self, writer: Writer, *below: str) -> None:
        """Change the entries of a store. To do it twice leaves what once has left."""
        for what, name, value in self._entries:
            if what == _PUT:
                writer.put_state(value, *below, *name)
            elif what == _DELETE:
                writer.delete_state(*below, *name)
            else:
                *of, first = name
                for (gone,) in [one for one, _ in writer.states(*below, *of) if one[0] < first]:
                    writer.delete_state(*below, *of, gone)

    def packed(self) -> bytes:
        """All entries as bytes."""
        parts: list[bytes] = []
        for what, name, value in self._entries:
            key = "\0".join(name).encode()
            parts += (_HEAD.pack(what, len(key), len(value)), key, value)
        return b"".join(parts)

    @classmethod
    def unpacked(cls, kept: bytes) -> Changes:
        """What `packed` gave."""
        found, at = cls(), 0
        while at < len(kept):
            what, key, value = _HEAD.unpack_from(kept, at)
            at += _HEAD.size
            name = tuple(kept[at : at + key].decode().split("\0"))
            found._entries.append((what, name, kept[at + key : at + key + value]))
            at += key + value
        return found
