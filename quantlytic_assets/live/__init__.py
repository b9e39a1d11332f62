"""The live path: what comes over the bus into bars, features, signals and orders, as it comes.

`minutes`, `natives`, `lines`, `deciding` and `pipeline` compute and know neither bus nor store. `state` is how they are
kept and found again, `publishing` where their results go, `warm_start` what they begin with, `process` the loop.
"""
