"""How loops are compiled: the machine code is kept beside the package, or in the user's cache directory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as machine code; a division by zero gives an infinity or NaN, as in numpy.

    Where no directory can be written it is compiled anew in each process.
    """
    try:
        return njit(cache=True, error_model="numpy")(function)
    except RuntimeError:
        return njit(error_model="numpy")(function)
