"""How loops are compiled: the machine code is kept beside the package, or in the user's cache directory."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
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


@cache
def compiled_around(loop: Any, source: str) -> Callable[..., Any]:
    """A compiled function that calls a compiled loop of a module, from a source in which it stands as `loop`.

    It gets a name of its own and counts as part of that module: numba keeps the machine code of a function by these,
    and would keep none of one that is given the loop as an argument or closes over it.
    """
    function = loop.py_func
    name = function.__name__
    names = {name: loop}
    exec(compile(source.replace("loop", name), function.__code__.co_filename, "exec"), names)
    made = names[f"{name}_each"]
    made.__module__ = function.__module__
    return compiled(made)
