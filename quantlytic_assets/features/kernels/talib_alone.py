"""TA-Lib without pandas.

TA-Lib loads pandas to take its series, where it is installed. That takes half a second, for which every process that
computes features would wait; here functions are given arrays.
"""

from __future__ import annotations

import sys

# What is loaded already costs nothing more. `None` is Python's own way to say that a module can't be imported.
_hidden = "pandas" not in sys.modules
if _hidden:
    sys.modules["pandas"] = None  # type: ignore[assignment]
try:
    import talib
    from talib import abstract, stream
finally:
    if _hidden:
        del sys.modules["pandas"]

__all__ = ["abstract", "stream", "talib"]
