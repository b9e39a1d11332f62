"""Features of bars: declared once, computed of many bars at once or bar by bar, with the same numbers.

`registry` knows every feature by name and the named sets; `spec` says what a declaration is; `batch.compute` takes
frames of bars, `online.Board` takes bar after bar. `library` has the declarations by family, `kernels` the arithmetic.
Nothing here reads or writes: which bars to read follows from `Feature.warmup`, and is for the caller to do.

>>> from quantlytic_assets.features.registry import Registry
>>> [one.columns for one in Registry().features(["rsi", "macd(8, 17, 9)"])]
[('rsi_14',), ('macd_8_17_9', 'macd_signal_8_17_9', 'macd_hist_8_17_9')]
"""
