"""How the engine is compiled: one entry whose machine code is kept, and helpers that become part of it.

A kept entry is found again by its own file alone, so that a change of a helper in another file would go unnoticed. The
entry therefore carries a fingerprint of all the sources, and helpers are not kept by themselves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit

# Nothing in the kernel makes an array, so none of it counts references.
_OPTIONS: dict[str, Any] = {"error_model": "numpy", "_nrt": False}
# Several accounts are run at once, each with arrays of its own.
_ENTRY: dict[str, Any] = {**_OPTIONS, "nogil": True}
_PART: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def helper(function: Callable[..., Any]) -> Any:
    """A part of the kernel, which Python does not call; a division by zero gives an infinity or NaN, as in numpy."""
    # Without the wrappers, and without counting, it takes the compiler less than half the time.
    return njit(**_OPTIONS, **_PART)(function)


def fingerprint() -> int:
    """A number that changes with any source of the engine."""
    told = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        told.update(path.read_bytes())
    return int.from_bytes(told.digest()[:6], "big")


def entry(function: Callable[..., Any]) -> Any:
    """What Python calls; where no directory can be written it is compiled anew in each process."""
    try:
        return njit(cache=True, **_ENTRY)(function)
    except RuntimeError:
        return njit(**_ENTRY)(function)
