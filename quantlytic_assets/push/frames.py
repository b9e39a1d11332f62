"""Frames of the websocket: JSON as text, MessagePack as binary, and what is wrong with one that can't be read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgpack
import orjson

# Of a frame that is sent to us.
MOST_BYTES = 64 * 1024


class FrameError(Exception):
    """A frame that can't be understood or granted. `code` is a word for programs; the message says what is right."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code


def read_frame(text: str | None, binary: bytes | None) -> dict[str, Any]:
    """The object in a frame: JSON where it is text, else MessagePack (or JSON all the same). Raises `FrameError`."""
    size = len(text) if text is not None else len(binary or b"")
    if size > MOST_BYTES:
        raise FrameError("too_long", f"a frame of {size} bytes; send at most {MOST_BYTES}")
    try:
        if text is not None:
            found = orjson.loads(text)
        else:
            found = _unpacked(binary or b"")
    except (ValueError, RecursionError, UnicodeError, TypeError, OverflowError, msgpack.UnpackException) as error:
        kind = "JSON" if text is not None else "MessagePack"
        message = f"the frame is no {kind} ({error}); send text as JSON, binary as MessagePack"
        raise FrameError("unreadable", message) from None
    if not isinstance(found, dict):
        raise FrameError("no_object", 'a frame is an object such as {"action": "subscribe", …}')
    return found


def _unpacked(binary: bytes) -> Any:
    if binary[:1] == b"{":
        return orjson.loads(binary)
    return msgpack.unpackb(binary, strict_map_key=True)


def joined(items: Iterable[bytes]) -> bytes:
    """JSON values as a JSON array."""
    return b"[" + b",".join(items) + b"]"


def packed(message: bytes) -> bytes:
    """A JSON text as MessagePack."""
    return msgpack.packb(orjson.loads(message))
