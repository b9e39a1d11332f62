"""Cursors: how far a reader has come in the journal, as `<epoch>-<sequence>`.

The epoch tells a hot store from one that was made anew, whose numbers begin again. It is 0 until the journal of a new
store has its first entry.
"""

from __future__ import annotations

from dataclasses import dataclass

from quantlytic_assets.push.frames import FrameError


@dataclass(frozen=True)
class Cursor:
    """A place in the journal of a store: everything up to and with this sequence number has been read."""

    epoch: str
    sequence: int

    def __str__(self) -> str:
        return f"{self.epoch or 0}-{self.sequence}"

    def reached_by(self, epoch: str, oldest: int, newest: int) -> bool:
        """Whether a journal with entries from `oldest` to `newest` has all that follows."""
        return self.epoch in (epoch, "") and oldest - 1 <= self.sequence <= newest

    @classmethod
    def parsed(cls, text: object) -> Cursor:
        """The cursor of its text; raises `FrameError`."""
        epoch, dash, number = text.rpartition("-") if isinstance(text, str) else ("", "", "")
        if not dash or not (number.isascii() and number.isdigit()) or len(number) > 18:
            raise FrameError(
                "cursor", f"cursor: {text!r:.60} is none; send back one of a message, such as 3f2a90c1d4e5-17"
            )
        return cls("" if epoch == "0" else epoch, int(number))
