"""What a layout that is not this code's is answered with. Imports nothing: commands catch these errors."""

from __future__ import annotations


class LayoutError(Exception):
    """A database or the lake has another layout than this code; the message says what to do."""


class OldLayout(LayoutError):
    """A layout from before this code."""

    def __init__(self, what: str, pending: int):
        behind = "one step" if pending == 1 else f"{pending} steps"
        super().__init__(
            f"{what} has the layout of an older version, {behind} behind this one: run `quantlytic migrate`"
        )


class NewLayout(LayoutError):
    """A layout from after this code."""

    def __init__(self, what: str, unknown: str):
        super().__init__(
            f"{what} has the layout of a newer version of Quantlytic ({unknown} is not known to this one): "
            "install that version, nothing was changed"
        )
